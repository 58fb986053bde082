//! The reasons why a source cannot be changed, as values of a plan, with their words.

use serde::Serialize;

use crate::config::Publish;

/// The reason why a source cannot be changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "refused")]
#[expect(
    missing_docs,
    reason = "the words of each value say what its fields are"
)]
pub enum Refusal {
    /// The keys of some objects cannot be asked for. `first` are the first of their URLs.
    Unreadable { count: usize, first: Vec<String> },
    /// Absorbed raw objects have other content now.
    Changed { count: usize, first: String },
    /// Absorbed raw objects that are needed are gone.
    Vanished { count: usize, first: String },
    /// The settings differ from the settings of the tables.
    Settings {
        reasons: String,
        /// The flags of the `rebuild` that brings the tables up to date.
        rebuild: String,
        partitions: usize,
        /// The bytes that it would read, and what they belong to.
        bytes: u64,
        from_raw: bool,
        /// The rules in TOML that leave the published dates as they are, where there are such rules.
        #[serde(skip_serializing_if = "Option::is_none")]
        rules: Option<String>,
    },
    /// A raw object is to be dropped that was never absorbed.
    NotAbsorbed { key: String },
    /// The lake has data files that another `publish` has published.
    Published {
        /// The configured one.
        publish: Publish,
        files: u64,
        bytes: u64,
    },
    /// A rebuild of some dates was asked for, and only a rebuild of all dates is possible.
    OnlyWhole { reasons: String },
}

impl Refusal {
    /// The refusal of the source `name` in words: the problem and the remedy.
    pub fn of(&self, name: &str) -> String {
        match self {
            Self::Unreadable { count, first } => format!(
                "{name}: {count} objects below its raw roots have keys that rawmart cannot request: {}; nothing \
                 was published. A key may not hold an empty name between two `/`, begin or end with `/`, have \
                 `.` or `..` as a name, or hold a control character or a file name that is not UTF-8. Copy \
                 these objects to other keys, or leave them out with sources.{name}.exclude",
                named(first, *count)
            ),
            Self::Changed { count, first } => format!(
                "{name}: {count} raw objects that were absorbed have other content now, first {first}; nothing \
                 was published. If they were corrected on purpose, `rawmart run --replace-changed` replaces \
                 their earlier events by the new ones; otherwise restore them, or set \
                 sources.{name}.on_changed_object"
            ),
            Self::Vanished { count, first } => format!(
                "{name}: {count} raw objects that were absorbed are gone, first {first}; restore them, or \
                 correct sources.{name}.raw, or give their events up with `rawmart rebuild --source {name} \
                 --forget-missing`"
            ),
            Self::Settings {
                reasons,
                rebuild,
                partitions,
                bytes,
                from_raw,
                rules,
            } => format!(
                "{name}: {reasons}. {partitions} published dates still follow the earlier settings: `rawmart \
                 rebuild {rebuild}` makes them again and reads {}{}{}",
                Bytes(*bytes),
                match from_raw {
                    true => " of raw objects",
                    false => " of data files, no raw object",
                },
                match rules {
                    Some(rules) => format!(
                        ". To keep these dates as they are, replace all rules of {name} with these rules:\n{}",
                        rules.trim_end()
                    ),
                    None => String::new(),
                }
            ),
            Self::NotAbsorbed { key } => format!(
                "{name}: no raw object {key:?} was absorbed, so it has no events to drop; `rawmart history` with \
                 the number of a commit prints the keys of raw objects. To keep an object out that was not \
                 absorbed yet, name it in sources.{name}.exclude"
            ),
            Self::Published {
                publish,
                files,
                bytes,
            } => {
                let (now, before) = match publish {
                    Publish::Catalog => ("catalog", "directory"),
                    Publish::Directory => ("directory", "catalog"),
                };
                format!(
                    "{name}: the configuration says `publish = \"{now}\"`, and {files} data files of the lake were \
                     published with `publish = \"{before}\"`: `rawmart rebuild` copies these files ({}) to their new \
                     places and builds everything again; or set `publish = \"{before}\"` again",
                    Bytes(*bytes)
                )
            }
            Self::OnlyWhole { reasons } => format!(
                "{name}: {reasons}; this changes every file of its tables, so a rebuild of some dates is not \
                 enough: leave out --from and --to"
            ),
        }
    }
}

/// The first of `count` names, each in quotes and on one line.
fn named(first: &[String], count: usize) -> String {
    let mut names: Vec<String> = first.iter().map(|name| format!("{name:?}")).collect();
    if count > names.len() {
        names.push(format!("and {} more", count - names.len()));
    }
    names.join(", ")
}

/// A number of bytes in the form that people read: `1.50 KiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl std::fmt::Display for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut number = self.0 as f64;
        let mut unit = None;
        for larger in ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] {
            if number >= 1024.0 {
                number /= 1024.0;
                unit = Some(larger);
            }
        }
        match unit {
            None => write!(f, "{number:.0} B"),
            Some(unit) => write!(f, "{number:.2} {unit}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_spelled_with_the_largest_unit_that_fits() {
        for (bytes, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.00 KiB"),
            (1_536, "1.50 KiB"),
            ((1 << 20) - 1, "1024.00 KiB"),
            (1 << 20, "1.00 MiB"),
            (5 << 30, "5.00 GiB"),
            (u64::MAX, "16.00 EiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn a_refusal_names_the_source_and_what_to_do() {
        let settings = Refusal::Settings {
            reasons: "changed rules: clicks".to_owned(),
            rebuild: "--source events".to_owned(),
            partitions: 2,
            bytes: 3 << 20,
            from_raw: false,
            rules: Some("[[sources.events.dedup]]\n".to_owned()),
        };
        assert_eq!(
            settings.of("events"),
            "events: changed rules: clicks. 2 published dates still follow the earlier settings: \
             `rawmart rebuild --source events` makes them again and reads 3.00 MiB of data files, no raw \
             object. To keep these dates as they are, replace all rules of events with these rules:\n\
             [[sources.events.dedup]]"
        );
    }
}
