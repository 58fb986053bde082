//! The structure of `src/`, as its imports draw it: a room imports rooms below it and none above it, and the files
//! of a folder do not import each other in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// From the top of the house to its ground floor. A room may import the rooms after it.
const ROOMS: [&str; 21] = [
    "report", "cli", "run", "absorb", "plan", "mart", "lake", "publish", "catalog", "ledger",
    "infer", "raw", "dedup", "engine", "store", "config", "event", "layout", "time", "names",
    "progress",
];

/// Files that are not rooms: the list of the rooms, the set-up of the process, and a test.
const OTHERS: [&str; 3] = ["lib", "main", "pages"];

/// The path of a module, or of an item in a module: `["mart", "error", "MartError"]`.
type Names = Vec<String>;

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files_below(&path, found),
            false if path.extension().is_some_and(|ending| ending == "rs") => found.push(path),
            false => {}
        }
    }
}

/// The text of every file of a room by its module, without comments and tests.
fn modules() -> BTreeMap<Names, String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    files_below(&src, &mut files);
    let modules = files.iter().filter_map(|file| {
        let module = file.strip_prefix(&src).unwrap().with_extension("");
        let module: Names = module
            .iter()
            .map(|name| name.to_str().unwrap().to_owned())
            .collect();
        let name = module.last().unwrap();
        if OTHERS.contains(&module[0].as_str()) || name.ends_with("tests") || name == "samples" {
            return None;
        }
        let text = fs::read_to_string(file).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let code = text.lines().map(|line| line.split("//").next().unwrap());
        Some((module, code.collect::<Vec<_>>().join("\n")))
    });
    modules.collect()
}

/// The paths that a text names from `crate`, `super` or `self` on, or behind `use`, in full. `module` is the
/// module of the text.
fn paths(module: &[String], text: &str) -> Vec<Names> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("::") {
        let name = |c: char| c.is_alphanumeric() || c == '_';
        let before = text[..at].trim_end_matches(name);
        let head = &text[before.len()..at];
        if before.ends_with("::") || !(before.ends_with("use ") || is_root(head)) {
            continue;
        }
        let mut path = match head {
            "crate" => Vec::new(),
            "super" => module[..module.len() - 1].to_vec(),
            "self" => module.to_vec(),
            child => [module, &[child.to_owned()]].concat(),
        };
        let mut rest = &text[at + 2..];
        while let Some(further) = rest.strip_prefix("super::") {
            path.pop();
            rest = further;
        }
        named(path, rest, &mut found);
    }
    found
}

fn is_root(head: &str) -> bool {
    ["crate", "super", "self"].contains(&head)
}

/// Adds the paths of `text` below `path`: names with `::` between them, the last of them perhaps a list in braces.
fn named(mut path: Names, text: &str, found: &mut Vec<Names>) {
    if let Some(list) = text.strip_prefix('{') {
        let (mut depth, mut start) = (0, 0);
        for (at, letter) in list.char_indices() {
            match letter {
                '{' => depth += 1,
                ',' | '}' if depth == 0 => {
                    named(path.clone(), list[start..at].trim(), found);
                    start = at + 1;
                    if letter == '}' {
                        return;
                    }
                }
                '}' => depth -= 1,
                _ => {}
            }
        }
        return;
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    let (name, rest) = text.split_at(end.unwrap_or(text.len()));
    if !name.is_empty() && name != "self" {
        path.push(name.to_owned());
    }
    match rest.strip_prefix("::") {
        Some(rest) => named(path, rest, found),
        None => found.push(path),
    }
}

/// The modules that each module names. A name that a room imports from one of its files counts as that file.
fn imports(modules: &BTreeMap<Names, String>) -> BTreeMap<Names, BTreeSet<Names>> {
    let named: BTreeMap<&Names, Vec<Names>> = modules
        .iter()
        .map(|(module, text)| (module, paths(module, text)))
        .collect();
    // `super::Name` may be a name that the room imports from another of its files.
    let mut aliases: BTreeMap<Names, &Names> = BTreeMap::new();
    for (module, paths) in &named {
        for path in paths {
            let alias = [&module[..], &path[path.len() - 1..]].concat();
            let home = (1..=path.len()).rev().map(|end| &path[..end]);
            let home = home.into_iter().find(|home| modules.contains_key(*home));
            if alias != *path && home.is_some_and(|home| home != &module[..]) {
                aliases.insert(alias, path);
            }
        }
    }
    let module_of = |path: &Names| {
        let mut path = path.clone();
        for _ in 0..10 {
            let ends = (1..=path.len()).rev();
            let aliased = ends
                .clone()
                .find_map(|end| Some((end, *aliases.get(&path[..end])?)));
            let module = ends.clone().find(|end| modules.contains_key(&path[..*end]));
            match aliased {
                Some((end, full)) if Some(end) > module => {
                    path = [&full[..], &path[end..]].concat();
                }
                _ => return module.map(|end| path[..end].to_vec()),
            }
        }
        panic!("the imports of {path:?} have no end")
    };
    let imports = named.iter().map(|(module, paths)| {
        let others = paths
            .iter()
            .filter_map(module_of)
            .filter(|other| other != *module);
        ((*module).clone(), others.collect())
    });
    imports.collect()
}

/// For each folder, the files in it by the files beside them that they import. A file and the folder of its name count
/// as one. A file and the files in its folder may import each other: they are one subject, and the file is its door.
fn beside(
    imports: &BTreeMap<Names, BTreeSet<Names>>,
) -> BTreeMap<Names, BTreeMap<&str, BTreeSet<&str>>> {
    let mut folders: BTreeMap<Names, BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
    for (module, others) in imports {
        for other in others {
            let common = module.iter().zip(other).take_while(|(a, b)| a == b).count();
            if let (Some(from), Some(to)) = (module.get(common), other.get(common)) {
                let folder = folders.entry(module[..common].to_vec()).or_default();
                folder.entry(from).or_default().insert(to);
            }
        }
    }
    folders
}

/// The names that are reached from `name`, which is among them only if it lies on a circle.
fn reached<'a>(name: &str, edges: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&str> = edges.get(name).into_iter().flatten().copied().collect();
    while let Some(next) = open.pop() {
        if found.insert(next) {
            open.extend(edges.get(next).into_iter().flatten());
        }
    }
    found
}

#[test]
fn a_room_imports_rooms_below_it_alone() {
    let floor = |room: &str| {
        let floor = ROOMS.iter().position(|known| *known == room);
        floor.unwrap_or_else(|| panic!("{room} is not in the list of rooms"))
    };
    let imports = imports(&modules());
    let folders = beside(&imports);
    let rooms = &folders[&Vec::new()];
    let imports = rooms
        .iter()
        .flat_map(|(room, others)| others.iter().map(move |other| (room, other)));
    let upward: Vec<_> = imports
        .clone()
        .filter(|(room, other)| floor(other) < floor(room))
        .collect();
    assert!(imports.count() > 60, "only {rooms:?} were found");
    assert!(upward.is_empty(), "{upward:?}");
}

#[test]
fn files_of_a_folder_do_not_import_each_other_in_a_circle() {
    let imports = imports(&modules());
    let folders = beside(&imports);
    let edges: usize = folders
        .values()
        .flat_map(|edges| edges.values())
        .map(BTreeSet::len)
        .sum();
    assert!(
        folders.len() > 15 && edges > 250,
        "only {} folders, {edges} imports",
        folders.len()
    );
    let circles = folders.iter().filter_map(|(folder, edges)| {
        let circle = edges
            .keys()
            .filter(|name| reached(name, edges).contains(*name));
        let circle: Vec<_> = circle.collect();
        (!circle.is_empty()).then(|| format!("{}: {circle:?} import each other", folder.join("/")))
    });
    let circles: Vec<String> = circles.collect();
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn an_import_is_found_in_whatever_form() {
    let text = "use crate::event::{A, b::{C, self}};\nfn f(x: &crate::lake::Lake<P>) { super::super::x() }\n\
                use other::run;\npub use self::a::*; use super::d::e as f; iter::once(1)";
    let module = ["room".to_owned(), "file".to_owned(), "part".to_owned()];
    let found: Vec<String> = paths(&module, text)
        .iter()
        .map(|path| path.join("::"))
        .collect();
    let expected = [
        "event::A",
        "event::b::C",
        "event::b",
        "lake::Lake",
        "room::x",
        "room::file::part::other::run",
        "room::file::part::a",
        "room::file::d::e",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_circle_is_found_behind_the_names_of_a_room() {
    let module = |path: &str, text: &str| {
        let path = path.split('/').map(str::to_owned).collect::<Names>();
        (path, text.to_owned())
    };
    let files = [
        module("a", "mod b; mod c; pub use b::B; use c::d::D;"),
        module("a/b", "use super::c::C;"),
        module("a/c", "pub struct C;"),
        module("a/c/d", "use crate::a::B; pub struct D;"),
        module("a/e", "use super::D;"),
    ];
    let imports = imports(&files.into());
    let folders = beside(&imports);
    let edges = &folders[&vec!["a".to_owned()]];
    let on_circle = |name: &str| reached(name, edges).contains(name);
    assert_eq!(
        ["b", "c", "e"].map(on_circle),
        [true, true, false],
        "{edges:?}"
    );
}
