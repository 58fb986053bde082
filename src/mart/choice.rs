//! Marts by name, by folder and by their neighbours; and the graph as people draw it.
//!
//! ```text
//! name      the mart              folder   the marts in it and below it
//! +name     and what it reads     name+    and what reads it
//! ```

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use serde::Serialize;

use super::{Graph, Mart, MartError};
use crate::names::nearest;

/// Marts and the tables, references and marts that each of them reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drawn {
    /// The marts, in an order in which they can be built.
    #[serde(rename = "graph")]
    pub marts: Vec<DrawnMart>,
}

/// One mart of a drawn graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DrawnMart {
    /// The name of the table.
    pub name: String,
    /// The folder of the SQL file below the folder of marts; empty at the top.
    pub folder: String,
    /// What it reads.
    pub reads: Vec<DrawnInput>,
}

/// A table, a reference or a mart that a mart reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DrawnInput {
    /// Its name.
    pub table: String,
    /// The dates of it that one date of the mart reads, where the mart is built by date.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reach: Option<String>,
}

impl Graph {
    /// The names of the marts that are meant by names and folders. All marts where nothing is `chosen`.
    ///
    /// # Errors
    /// A name that is neither the name of a mart nor of a folder.
    pub fn choose(&self, chosen: &[String]) -> Result<BTreeSet<String>, MartError> {
        if chosen.is_empty() {
            return Ok(self.marts().iter().map(|mart| mart.name.clone()).collect());
        }
        let mut names = BTreeSet::new();
        for asked in chosen {
            names.extend(self.one_choice(asked)?);
        }
        Ok(names)
    }

    fn one_choice(&self, asked: &str) -> Result<BTreeSet<String>, MartError> {
        let (upward, rest) = match asked.strip_prefix('+') {
            Some(rest) => (true, rest),
            None => (false, asked),
        };
        let (downward, name) = match rest.strip_suffix('+') {
            Some(name) => (true, name),
            None => (false, rest),
        };
        let name = name.trim_end_matches('/');
        let is_meant = |mart: &&Mart| mart.name == name || self.is_in_folder(mart, name);
        let meant: BTreeSet<String> = (self.marts().iter().filter(is_meant))
            .map(|mart| mart.name.clone())
            .collect();
        if meant.is_empty() {
            return Err(self.unknown(name));
        }
        let mut names = meant.clone();
        if upward {
            // Each mart comes after those that it reads.
            let mut wanted = meant.clone();
            for mart in self.marts().iter().rev() {
                if wanted.contains(&mart.name) {
                    wanted.extend(mart.inputs.iter().cloned());
                    names.insert(mart.name.clone());
                }
            }
        }
        if downward {
            let mut reached = meant;
            for mart in self.marts() {
                if mart.inputs.iter().any(|input| reached.contains(input)) {
                    reached.insert(mart.name.clone());
                }
            }
            names.extend(reached);
        }
        Ok(names)
    }

    /// The folder of a mart's file below the folder of marts.
    fn folder_of<'a>(&self, mart: &'a Mart) -> &'a Path {
        let below = mart.file.strip_prefix(self.folder());
        below.ok().and_then(Path::parent).unwrap_or(Path::new(""))
    }

    fn is_in_folder(&self, mart: &Mart, folder: &str) -> bool {
        !folder.is_empty() && self.folder_of(mart).starts_with(folder)
    }

    fn unknown(&self, name: &str) -> MartError {
        let error = MartError::new(
            self.folder(),
            None,
            format!("there is no mart and no folder of marts `{name}`"),
        );
        let folders = self.marts().iter().map(|mart| self.folder_of(mart));
        let folders: Vec<String> = folders.map(|path| path.display().to_string()).collect();
        let marts = self.marts().iter().map(|mart| mart.name.as_str());
        let names: Vec<&str> = marts.chain(folders.iter().map(String::as_str)).collect();
        match nearest(name, names.iter().copied().filter(|name| !name.is_empty())) {
            Some(near) => error.hint(format!("is it `{near}`?")),
            None => error.hint("`rawmart marts --graph` prints the marts"),
        }
    }

    /// The graph of some marts.
    pub fn draw(&self, names: &BTreeSet<String>) -> Drawn {
        let marts = self
            .marts()
            .iter()
            .filter(|mart| names.contains(&mart.name));
        let marts = marts.map(|mart| DrawnMart {
            name: mart.name.clone(),
            folder: self.folder_of(mart).display().to_string(),
            reads: (mart.inputs.iter())
                .map(|input| DrawnInput {
                    table: input.clone(),
                    reach: mart.reach.get(input).map(|reach| reach.words()),
                })
                .collect(),
        });
        Drawn {
            marts: marts.collect(),
        }
    }
}

impl Drawn {
    /// The graph as Mermaid draws it, from what is read to what reads it.
    pub fn mermaid(&self) -> String {
        let made: BTreeSet<&str> = self.marts.iter().map(|mart| mart.name.as_str()).collect();
        let mut lines = vec!["graph LR".to_owned()];
        let read = self.marts.iter().flat_map(|mart| &mart.reads);
        let read: BTreeSet<&str> = read.map(|input| input.table.as_str()).collect();
        // Some names, such as `end`, are words of Mermaid, so each node has an id of its own.
        for table in read.difference(&made) {
            lines.push(format!("    t_{table}[(\"{table}\")]"));
        }
        for mart in &self.marts {
            lines.push(format!("    t_{0}[\"{0}\"]", mart.name));
        }
        for mart in &self.marts {
            for input in &mart.reads {
                lines.push(format!("    t_{} --> t_{}", input.table, mart.name));
            }
        }
        lines.join("\n") + "\n"
    }
}

/// One line for each mart, each after the marts that it reads.
impl fmt::Display for Drawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |mart: &DrawnMart| match mart.folder.as_str() {
            "" => mart.name.clone(),
            folder => format!("{folder}/{}", mart.name),
        };
        let width = self.marts.iter().map(|mart| shown(mart).len()).max();
        for mart in &self.marts {
            let reads = mart.reads.iter().map(|input| match &input.reach {
                Some(reach) => format!("{} ({reach})", input.table),
                None => input.table.clone(),
            });
            let reads: Vec<String> = reads.collect();
            let (name, width) = (shown(mart), width.unwrap_or(0));
            writeln!(f, "{name:<width$}  reads {}", reads.join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mart;

    /// `a` reads the table `t`, `b` reads `a`, `c` reads `b`, and `d` reads `t`; `b` and `d` are in folders.
    fn graph() -> Graph {
        let folder = tempfile::tempdir().unwrap();
        for (file, reads) in [
            ("a.sql", "t"),
            ("growth/b.sql", "a"),
            ("c.sql", "b"),
            ("growth/old/d.sql", "t"),
        ] {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("SELECT count(*) AS n FROM {reads}")).unwrap();
        }
        mart::load(folder.path(), &["t".to_owned()], &[]).unwrap()
    }

    fn chosen(names: &[&str]) -> String {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        match graph().choose(&names) {
            Ok(names) => names.into_iter().collect(),
            Err(error) => format!("{}; {}", error.message, error.hint.unwrap()),
        }
    }

    #[test]
    fn marts_are_chosen_by_name_folder_and_neighbours() {
        for (names, marts) in [
            (&[][..], "abcd"),
            (&["b"], "b"),
            (&["+b"], "ab"),
            (&["b+"], "bc"),
            (&["+b+"], "abc"),
            (&["growth"], "bd"),
            (&["growth/"], "bd"),
            (&["growth/old"], "d"),
            (&["+growth"], "abd"),
            (&["growth+"], "bcd"),
            (&["c", "d"], "cd"),
        ] {
            assert_eq!(chosen(names), marts, "{names:?}");
        }
        assert!(chosen(&["grwth"]).ends_with("is it `growth`?"));
        assert!(chosen(&["xyz"]).contains("no mart and no folder of marts `xyz`"));
        assert!(chosen(&[""]).contains("no mart"));
    }

    #[test]
    fn a_graph_is_drawn_as_text_and_for_mermaid() {
        let graph = graph();
        let drawn = graph.draw(&graph.choose(&["+b".to_owned()]).unwrap());
        assert_eq!(drawn.to_string(), "a         reads t\ngrowth/b  reads a\n");
        assert_eq!(
            drawn.mermaid(),
            "graph LR\n    t_t[(\"t\")]\n    t_a[\"a\"]\n    t_b[\"b\"]\n    t_t --> t_a\n    t_a --> t_b\n"
        );
    }
}
