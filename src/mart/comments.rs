//! The comments of a mart's file, which reach the DDL of its table.
//!
//! ```text
//! -- Daily active users. Growth team.     ──▶ comment of the table: the first paragraph of the header
//! -- partition: dt
//! SELECT
//!     count(*) AS events, -- all of them  ──▶ comment of the column `events`
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer, Whitespace};

use super::graph;
use crate::catalog::Comments;

/// The comments of every mart in a folder, by mart. A file that cannot be read has none.
pub fn comments(folder: &Path) -> BTreeMap<String, Comments> {
    let mut files = Vec::new();
    if let Err(error) = graph::collect(folder, &mut files) {
        tracing::debug!(%error, "the marts have no comments");
    }
    let read = files.into_iter().filter_map(|file| {
        let name = file.file_stem()?.to_str()?.to_owned();
        let sql = std::fs::read_to_string(&file).ok()?;
        Some((name, of_text(&sql)))
    });
    read.collect()
}

/// The comments of a file's text. Text that is no SQL has none of its columns.
fn of_text(sql: &str) -> Comments {
    Comments {
        table: paragraph(sql),
        columns: of_columns(sql).unwrap_or_default(),
    }
}

/// The first lines of comment at the beginning, up to an empty one or one with a header's key.
fn paragraph(sql: &str) -> Option<String> {
    let lines = sql.lines().map(str::trim);
    let mut lines = lines.skip_while(|line| line.is_empty());
    let mut words: Vec<&str> = Vec::new();
    while let Some(comment) = lines.next().and_then(|line| line.strip_prefix("--")) {
        let comment = comment.trim_matches(['-', ' ', '\t']);
        if comment.is_empty() && words.is_empty() {
            continue;
        }
        if comment.is_empty() || is_header(comment) {
            break;
        }
        words.push(comment);
    }
    (!words.is_empty()).then(|| words.join(" "))
}

fn is_header(comment: &str) -> bool {
    let key = comment.split_once(':').map(|(key, _)| key.trim_end());
    let is_word = |key: &str| key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    key.is_some_and(|key| !key.is_empty() && is_word(key))
}

/// One expression of the SELECT list while its tokens pass.
#[derive(Default)]
struct Item {
    /// The last word outside of parentheses: the alias, or the name of a plain column.
    name: Option<String>,
    comment: Option<String>,
}

impl Item {
    fn end(self, columns: &mut BTreeMap<String, String>) -> Option<String> {
        let name = self.name?;
        if let Some(comment) = self.comment {
            columns.insert(name.clone(), comment);
        }
        Some(name)
    }
}

/// The comments behind the columns of the outermost SELECT: in the column's last line, also behind its comma.
fn of_columns(sql: &str) -> Option<BTreeMap<String, String>> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize().ok()?;
    let mut columns = BTreeMap::new();
    let mut depth = 0_u32;
    let mut item: Option<Item> = None;
    // The column before the last comma, while the line goes on.
    let mut ended: Option<String> = None;
    for token in tokens {
        match (&token, &mut item) {
            (Token::LParen, _) => depth += 1,
            (Token::RParen, _) => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            (Token::Word(word), None) if word.value.eq_ignore_ascii_case("select") => {
                item = Some(Item::default());
            }
            (_, None) => {}
            (Token::Word(word), Some(_))
                if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("from") =>
            {
                break;
            }
            (Token::Word(word), Some(item)) => {
                item.name = Some(match word.quote_style {
                    None => word.value.to_lowercase(),
                    Some(_) => word.value.clone(),
                });
            }
            (Token::Comma, Some(item)) => ended = std::mem::take(item).end(&mut columns),
            (Token::Whitespace(Whitespace::SingleLineComment { comment, .. }), Some(item)) => {
                let comment = comment.trim().to_owned();
                match (ended.take(), item.name.is_some()) {
                    (Some(name), false) => _ = columns.insert(name, comment),
                    (_, true) => item.comment = Some(comment),
                    (None, false) => {}
                }
            }
            (Token::Whitespace(Whitespace::Newline), Some(_)) => ended = None,
            _ => {}
        }
    }
    if let Some(item) = item {
        item.end(&mut columns);
    }
    columns.retain(|_, comment| !comment.is_empty());
    Some(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_the_first_paragraph_and_a_column_the_comment_behind_it() {
        let sql = "\
--
-- Views by day: all of them.
-- Growth team.
-- partition: dt
-- More.
WITH a AS (SELECT x -- not this
           FROM t)
SELECT -- nor this
    e.Kind, -- kind of view
    count(*) -- how many
        AS n,
    -- a line of its own
    coalesce(a, -- inside
             b) AS \"Odd\", -- odd one
    now,
    dt -- the day
FROM events e -- not this
";
        let found = of_text(sql);
        let table = "Views by day: all of them. Growth team.";
        assert_eq!(found.table.as_deref(), Some(table));
        let columns: Vec<(&str, &str)> = found
            .columns
            .iter()
            .map(|(name, comment)| (name.as_str(), comment.as_str()))
            .collect();
        assert_eq!(
            columns,
            [
                ("Odd", "odd one"),
                ("dt", "the day"),
                ("kind", "kind of view"),
                ("n", "how many")
            ]
        );
    }

    #[test]
    fn a_file_without_comments_has_none() {
        assert_eq!(of_text("SELECT 1 AS a"), Comments::default());
        assert_eq!(of_text("-- partition: dt\nSELECT 'x"), Comments::default());
    }
}
