//! Compares the documentation with the repository: tests that are named exist, links lead to files, and outputs
//! are real.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::project::{Project, Ran};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap()
}

/// The files below `folder` with this ending, relative to the repository.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut files = all_files(folder);
    files.retain(|path| path.extension().is_some_and(|found| found == ending));
    files
}

/// The files below `folder`, relative to the repository.
fn all_files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![repository().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(repository()).unwrap().to_owned());
            }
        }
    }
    found
}

/// The texts between single backticks that lie within one line.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// The names of the test functions of a source file.
fn tests_of(path: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(repository().join(path)).unwrap();
    let mut names = BTreeSet::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        }
        let function = line.strip_prefix("async ").unwrap_or(line);
        if let Some(rest) = function.strip_prefix("fn ")
            && std::mem::take(&mut is_test)
        {
            names.insert(rest.split('(').next().unwrap().to_owned());
        }
    }
    names
}

/// `src/dedup/sort.rs` → `dedup::sort`, `tests/all/crash.rs` → `crash`.
fn module(path: &Path) -> String {
    let path = path.with_extension("");
    let path = path.to_str().unwrap();
    let inner = path
        .strip_prefix("tests/all/")
        .or(path.strip_prefix("src/"));
    inner.unwrap().replace('/', "::")
}

#[test]
fn every_test_that_a_promise_names_exists() {
    let mut sources = files("tests/all", "rs");
    sources.extend(files("src", "rs"));
    let sources: Vec<_> = sources
        .iter()
        .map(|path| (module(path), tests_of(path)))
        .collect();
    let exists = |name: &str| {
        let (within, test) = name.rsplit_once("::").unwrap();
        sources.iter().any(|(module, tests)| {
            let inner = within.strip_prefix(module.as_str());
            inner.is_some_and(|inner| inner.is_empty() || inner.starts_with("::"))
                && tests.contains(test)
        })
    };
    assert!(exists("docs::every_test_that_a_promise_names_exists"));
    assert!(!exists("docs::no_such_test"));

    let page = read("docs/promises.md");
    let promises: Vec<&str> = page.split("\n## P").skip(1).collect();
    assert_eq!(promises.len(), 9);
    for promise in promises {
        let title = promise.lines().next().unwrap();
        let named: Vec<&str> = quoted(promise).filter(|text| text.contains("::")).collect();
        assert!(named.len() > 1, "P{title} names no tests");
        for name in named {
            assert!(
                exists(name),
                "P{title} names `{name}`, and there is no such test"
            );
        }
    }
}

/// The name of a heading in a link, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = kept
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The lines of a page outside of code blocks.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    page.lines().filter(move |line| {
        let fence = line.starts_with("```");
        is_code ^= fence;
        !is_code && !fence
    })
}

fn pages() -> Vec<PathBuf> {
    let mut pages = files("docs", "md");
    pages.extend(
        [
            "README.md",
            "CHANGELOG.md",
            "CONTRIBUTING.md",
            "fixtures/README.md",
        ]
        .map(PathBuf::from),
    );
    pages
}

#[test]
fn every_link_within_the_documentation_leads_somewhere() {
    let mut links = 0;
    for path in pages() {
        let page = read(path.to_str().unwrap());
        for line in prose(&page) {
            for rest in line.split("](").skip(1) {
                let target = rest.split(')').next().unwrap();
                if target.starts_with("http") {
                    continue;
                }
                let (file, heading) = target.split_once('#').unwrap_or((target, ""));
                let linked = match file {
                    "" => path.clone(),
                    file => path.parent().unwrap().join(file),
                };
                let at = format!("{}: {target}", path.display());
                assert!(repository().join(&linked).exists(), "{at}");
                links += 1;
                if !heading.is_empty() {
                    let text = read(linked.to_str().unwrap());
                    let headings = prose(&text).filter(|line| line.starts_with('#'));
                    assert!(headings.map(anchor).any(|known| known == heading), "{at}");
                }
            }
        }
    }
    assert!(links > 10, "{links} links");
}

#[test]
fn every_page_can_be_reached_from_the_readme() {
    let mut reached = BTreeSet::from([PathBuf::from("README.md")]);
    let mut next = vec![PathBuf::from("README.md")];
    while let Some(path) = next.pop() {
        let page = read(path.to_str().unwrap());
        for rest in prose(&page).flat_map(|line| line.split("](").skip(1)) {
            let target = rest.split([')', '#']).next().unwrap();
            let linked = repository().join(path.parent().unwrap()).join(target);
            if target.ends_with(".md") && !target.starts_with("http") {
                let linked = linked.canonicalize().unwrap();
                let linked = linked.strip_prefix(repository().canonicalize().unwrap());
                let linked = linked.unwrap().to_owned();
                if reached.insert(linked.clone()) {
                    next.push(linked);
                }
            }
        }
    }
    for path in files("docs", "md") {
        assert!(
            reached.contains(&path),
            "no page links to {}",
            path.display()
        );
    }
}

/// A text without the parts that differ from run to run: seconds, sizes, times and names of runs.
pub fn redacted(text: &str) -> String {
    let is_number = |word: &str| word.starts_with(|c: char| c.is_ascii_digit());
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        for at in 1..words.len() {
            let unit = words[at].trim_matches(|c: char| !c.is_alphabetic());
            let number = words[at - 1].trim_start_matches('(');
            if ["s", "B", "KiB", "MiB"].contains(&unit) && is_number(number) {
                words[at - 1] = "N".to_owned();
                words[at] = "unit".to_owned();
            }
        }
        for word in &mut words {
            if is_number(word) && word.contains('T') && word.contains('Z') {
                *word = "RUN".to_owned();
            }
        }
        lines.push(words.join(" "));
    }
    lines.join("\n")
}

/// The output block of a page that begins with this text. Lines of `…` divide it into parts.
fn output_on(page: &str, beginning: &str) -> Vec<String> {
    let page = read(page);
    let blocks = page.split("```text\n").skip(1);
    let blocks = blocks.map(|rest| rest.split("```").next().unwrap());
    let found: Vec<&str> = blocks
        .filter(|block| block.starts_with(beginning))
        .collect();
    assert_eq!(found.len(), 1, "blocks that begin with {beginning:?}");
    redacted(found[0])
        .split("\n…")
        .map(|part| part.trim_end().to_owned())
        .collect()
}

/// Asserts that the page shows the printed text.
fn assert_printed(page: &str, beginning: &str, ran: &Ran) {
    let printed = redacted(&format!("{}{}", ran.out, ran.err));
    let mut rest = printed.as_str();
    for part in output_on(page, beginning) {
        let Some(at) = rest.find(&part) else {
            panic!("{page} has\n{part}\nand this was printed:\n{rest}");
        };
        rest = &rest[at + part.len()..];
    }
}

/// The demo, copied into a folder of its own.
pub fn demo() -> Project {
    let project = Project::new();
    for path in ["fixtures", "sql"]
        .iter()
        .flat_map(|folder| all_files(folder))
    {
        let content = std::fs::read(repository().join(&path)).unwrap();
        project.write(path.to_str().unwrap(), content);
    }
    project.write("rawmart.toml", read("rawmart.toml"));
    project
}

#[test]
fn outputs_in_the_documentation_are_real() {
    let demo = demo();
    let toml = read("rawmart.toml");
    let with = |name: &str, from: &str, to: &str| {
        assert!(toml.contains(from));
        demo.write(name, toml.replace(from, to));
    };
    assert_printed("README.md", "events: 36", &demo.rawmart(&["run"]));
    assert_printed("README.md", "lake: 22 files", &demo.rawmart(&["verify"]));
    assert_printed(
        "docs/operations.md",
        "commit 2,",
        &demo.rawmart(&["history"]),
    );

    with("typo.toml", "partition_by", "partition_bye");
    let typo = demo.rawmart(&["--config", "typo.toml", "run"]);
    let typo = Ran {
        err: typo.err.replace("typo.toml", "rawmart.toml"),
        ..typo
    };
    // Printed commands repeat the flags, and the pages have a configuration without a flag.
    let without = |flags: &str, ran: Ran| Ran {
        err: ran.err.replace(&format!("rawmart {flags} "), "rawmart "),
        ..ran
    };
    assert_printed("README.md", "error: rawmart.toml", &typo);

    with("strict.toml", "\"1%\"", "\"0.1%\"");
    let strict = demo.rawmart(&["--config", "strict.toml", "--lake", "strict", "run"]);
    assert_printed("docs/input.md", "error: events: 10 of", &strict);

    with("path.toml", "\"device.os\"", "\"devise.os\"");
    let path = demo.rawmart(&["--config", "path.toml", "--lake", "path", "run"]);
    assert_printed("docs/input.md", "  column os", &path);

    with("rule.toml", "\"1s\"", "\"2s\"");
    let rule = demo.rawmart(&["--config", "rule.toml", "run"]);
    let rule = without("--config rule.toml", rule);
    assert_printed("docs/operations.md", "error: events: changed rules", &rule);

    let late = "{\"event_id\":\"late\",\"event_type\":\"click\",\"event_time\":1554130798.900,\
                \"user_id\":\"u-midnight\",\"page\":\"/complex/D0001\",\"target\":\"favorite\"}\n";
    let page = read("docs/duplicates.md");
    assert!(page.contains(late.trim_end()), "the page has another event");
    let object = "fixtures/raw/app-events/2019/04/04/05/late.json";
    demo.write(object, late);
    assert_printed(
        "docs/duplicates.md",
        "events: absorb",
        &demo.rawmart(&["plan"]),
    );
    assert_printed("docs/duplicates.md", "events: 37", &demo.rawmart(&["run"]));

    demo.write(object, late.replace("late", "other"));
    let changed = demo.rawmart(&["run"]);
    assert_printed(
        "docs/operations.md",
        "error: events: 1 raw objects that",
        &changed,
    );
}
