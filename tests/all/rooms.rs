//! The rooms of `src/`, as `lib.rs` draws them: a room imports rooms below it, and none above it. So no
//! two rooms import each other, and nobody calls upward.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// From the top of the house to its ground floor. A room may import the rooms after it.
const ROOMS: [&str; 20] = [
    "report", "cli", "run", "absorb", "plan", "mart", "lake", "publish", "catalog", "ledger",
    "raw", "dedup", "engine", "store", "config", "event", "layout", "time", "names", "progress",
];

/// Not rooms: the list of the rooms, the set-up of the process, and a test.
const OTHERS: [&str; 3] = ["lib", "main", "pages"];

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

/// The rooms that a text imports, by what follows `crate::`.
fn imports(text: &str) -> BTreeSet<&str> {
    let paths = text.split("crate::").skip(1);
    let names = paths.map(|path| {
        let end = path.find(|c: char| !c.is_ascii_lowercase() && c != '_');
        &path[..end.unwrap_or(path.len())]
    });
    names.filter(|name| ROOMS.contains(name)).collect()
}

#[test]
fn a_room_imports_rooms_below_it_alone() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    files_below(&src, &mut files);
    files.sort();
    let floor = |room: &str| ROOMS.iter().position(|known| *known == room);
    let (mut upward, mut checked) = (Vec::new(), 0);
    for file in files {
        let path = file.strip_prefix(&src).unwrap();
        let room = path.iter().next().unwrap().to_str().unwrap();
        let room = room.trim_end_matches(".rs");
        let name = path.file_stem().unwrap().to_str().unwrap();
        if OTHERS.contains(&room) || name.ends_with("tests") || name == "samples" {
            continue;
        }
        let own = floor(room).unwrap_or_else(|| panic!("{room} is not in the list of rooms"));
        let text = fs::read_to_string(&file).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for other in imports(text) {
            checked += 1;
            if floor(other).unwrap() < own {
                upward.push(format!("{} imports {other}", path.display()));
            }
        }
    }
    assert!(checked > 100, "only {checked} imports were found");
    assert!(upward.is_empty(), "{}", upward.join("\n"));
}

#[test]
fn an_import_is_found_in_whatever_form() {
    let text = "use crate::event::{A, B};\nfn f(x: &crate::lake::Lake<P>) { crate::report::x() }\n\
                use crate::Nothing; use other::run::x;";
    let found: Vec<&str> = imports(text).into_iter().collect();
    assert_eq!(found, ["event", "lake", "report"]);
}
