//! Spellings that another database reads and Athena does not, found in the tokens of a mart: the syntax tree no longer
//! shows them, or the parser fails on them in words that help nobody.

use std::borrow::Cow;
use std::path::Path;

use datafusion::sql::sqlparser::dialect::{AnsiDialect, GenericDialect};
use datafusion::sql::sqlparser::tokenizer::{
    Location, Token, TokenWithSpan, Tokenizer, Whitespace,
};

use crate::mart::MartError;

/// Refuses the first such spelling; `text` is the whole file. A text that cannot be cut into tokens passes: the parser
/// says what is wrong with it.
///
/// # Errors
/// The spelling with its line, and what to write in its place.
pub(in crate::mart) fn check(file: &Path, text: &str) -> Result<(), MartError> {
    let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location();
    let tokens = tokens.unwrap_or_default();
    // Another dialect keeps the comments that MySQL reads as SQL.
    let plain = Tokenizer::new(&AnsiDialect {}, text).tokenize_with_location();
    let plain = plain.unwrap_or_default();
    let comments = tokens.iter().chain(&plain);
    let mut comments = comments.filter_map(comment);
    let found = comments.next();
    let found = found.or_else(|| (0..tokens.len()).find_map(|at| spelling(&tokens, at)));
    match found {
        None => Ok(()),
        Some(Found {
            line,
            what,
            instead,
        }) => Err(MartError::new(file, Some(line), what).hint(instead)),
    }
}

/// The text with `array(bigint)` behind AS, as Athena writes the type, as `array<bigint>`, which the parser reads. All
/// characters keep their places.
pub(in crate::mart) fn with_types_read(text: &str) -> Cow<'_, str> {
    let is_word = |token: &TokenWithSpan, word: &str| match &token.token {
        Token::Word(found) => found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word),
        _ => false,
    };
    let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location();
    let tokens = tokens.unwrap_or_default();
    let tokens: Vec<_> = tokens
        .iter()
        .filter(|token| !matches!(token.token, Token::Whitespace(_)))
        .collect();
    // The places of parentheses, and what stands there instead.
    let mut instead = Vec::new();
    let mut types = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let before = |distance: usize| at.checked_sub(distance).and_then(|at| tokens.get(at));
        match &token.token {
            Token::LParen => {
                let is_array = before(1).is_some_and(|word| is_word(word, "array"));
                let is_type = before(2).is_some_and(|word| is_word(word, "as"))
                    || types.last() == Some(&true);
                types.push(is_array && is_type);
                if is_array && is_type {
                    instead.push((token.span.start, "<"));
                }
            }
            Token::RParen if types.pop() == Some(true) => instead.push((token.span.start, ">")),
            _ => {}
        }
    }
    if instead.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut made = String::with_capacity(text.len());
    for (line, number) in text.split_inclusive('\n').zip(1_u64..) {
        for (letter, column) in line.chars().zip(1_u64..) {
            let place = Location::new(number, column);
            match instead.iter().find(|(at, _)| *at == place) {
                Some((_, bracket)) => made.push_str(bracket),
                None => made.push(letter),
            }
        }
    }
    Cow::Owned(made)
}

/// A spelling that is refused.
struct Found {
    /// The line, from 1.
    line: usize,
    /// What is wrong with it.
    what: String,
    /// What to write.
    instead: String,
}

fn found(token: &TokenWithSpan, what: impl Into<String>, instead: impl Into<String>) -> Found {
    Found {
        line: usize::try_from(token.span.start.line).unwrap_or(1),
        what: what.into(),
        instead: instead.into(),
    }
}

/// A comment that not every database reads as the same comment.
fn comment(token: &TokenWithSpan) -> Option<Found> {
    let Token::Whitespace(Whitespace::MultiLineComment(text)) = &token.token else {
        return None;
    };
    if text.starts_with('!') {
        let what = "`/*! … */` is a comment in Athena and DuckDB, and SQL in MySQL";
        return Some(found(
            token,
            what,
            "take it out, or write the SQL without the comment",
        ));
    }
    text.contains("/*").then(|| {
        let what = "a comment within a comment ends in Athena where the inner comment ends";
        found(token, what, "write `--` in front of each line")
    })
}

/// The spelling that begins at this token, if it is refused.
fn spelling(tokens: &[TokenWithSpan], at: usize) -> Option<Found> {
    let token = tokens.get(at)?;
    let next = tokens.get(at + 1);
    let behind = || tokens.get(at + 1..).unwrap_or_default().iter();
    let follows = || behind().find(|token| !matches!(token.token, Token::Whitespace(_)));
    match &token.token {
        Token::Comma => trailing(token, follows()),
        Token::Word(word) if word.quote_style == Some('`') => {
            let what = format!("`{word}` is not a name in Athena and DuckDB");
            Some(found(token, what, format!("write `\"{}\"`", word.value)))
        }
        Token::Word(word)
            if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("values") =>
        {
            bare_values(tokens, at, follows())
        }
        Token::Word(word) if word.quote_style.is_none() && word.value.starts_with(['@', '#']) => {
            let what = format!("`{word}` is not possible in a mart");
            let instead = "a comment begins with `--`; a mart has no variables";
            Some(found(token, what, instead))
        }
        Token::Number(number, _) => match next.map(|next| &next.token) {
            Some(Token::Word(word)) if word.quote_style.is_none() => {
                let what = format!(
                    "`{number}{word}` would be read as `{number} AS {word}`, and in Athena as a number or not at all"
                );
                Some(found(
                    token,
                    what,
                    "write all digits of the number without `_`, or a space and AS",
                ))
            }
            _ => None,
        },
        other => {
            let (what, instead) = operator(other).or_else(|| literal(other))?;
            Some(found(
                token,
                format!("{what} is not possible in a mart"),
                instead,
            ))
        }
    }
}

/// A comma that nothing follows.
fn trailing(comma: &TokenWithSpan, follows: Option<&TokenWithSpan>) -> Option<Found> {
    const CLAUSES: [&str; 11] = [
        "FROM",
        "WHERE",
        "GROUP",
        "HAVING",
        "ORDER",
        "UNION",
        "EXCEPT",
        "INTERSECT",
        "SELECT",
        "ON",
        "JOIN",
    ];
    let written = match follows.map(|token| &token.token) {
        Some(Token::Word(word)) if word.quote_style.is_none() => {
            let word = word.value.to_ascii_uppercase();
            CLAUSES.contains(&word.as_str()).then_some(word)
        }
        Some(Token::RParen | Token::RBracket | Token::RBrace | Token::Comma) => {
            follows.map(|token| token.token.to_string())
        }
        Some(Token::SemiColon | Token::EOF) | None => Some("the end".to_owned()),
        Some(_) => None,
    }?;
    let what =
        format!("nothing stands between the comma and {written}, and Athena does not read this");
    Some(found(
        comma,
        what,
        "take the comma out, or write what is missing behind it",
    ))
}

/// VALUES in FROM without parentheses around it.
fn bare_values(
    tokens: &[TokenWithSpan],
    at: usize,
    follows: Option<&TokenWithSpan>,
) -> Option<Found> {
    let before = tokens.get(..at).unwrap_or_default().iter().rev();
    let mut before = before.filter(|token| !matches!(token.token, Token::Whitespace(_)));
    let in_from = match before.next().map(|token| &token.token) {
        Some(Token::Word(word)) => {
            ["FROM", "JOIN"].contains(&word.value.to_ascii_uppercase().as_str())
        }
        _ => false,
    };
    let is_list = matches!(follows.map(|token| &token.token), Some(Token::LParen));
    let what = "VALUES without parentheses around it is not possible in a mart";
    match (tokens.get(at), in_from && is_list) {
        (Some(token), true) => {
            let instead = "write `FROM (VALUES (…), (…)) AS t (a, b)`";
            Some(found(token, what, instead))
        }
        _ => None,
    }
}

/// An operator that Athena does not have, and how the same is written there.
fn operator(token: &Token) -> Option<(String, &'static str)> {
    let instead = match token {
        Token::DoubleEq => "write `=`",
        Token::DuckIntDiv => "write `/`: an integer divided by an integer is an integer",
        Token::Spaceship => "write `a IS NOT DISTINCT FROM b`",
        Token::ExclamationMark => "write `NOT`",
        Token::Caret => "write `power(a, b)`",
        Token::CaretAt => "write `starts_with(a, b)`",
        Token::Sharp => "a comment begins with `--`",
        Token::Overlap => {
            "write `AND`; whether two lists have an item in common is `array_has_any(a, b)`"
        }
        Token::TildeAsterisk
        | Token::ExclamationMarkTilde
        | Token::ExclamationMarkTildeAsterisk => {
            "write `regexp_like(text, pattern)`, or `NOT regexp_like(…)`"
        }
        Token::DoubleTilde | Token::ExclamationMarkDoubleTilde => "write `LIKE` or `NOT LIKE`",
        Token::DoubleTildeAsterisk | Token::ExclamationMarkDoubleTildeAsterisk => {
            "write `lower(a) LIKE lower(b)`, or ILIKE"
        }
        Token::PGSquareRoot => "write `sqrt(x)`",
        Token::PGCubeRoot => "write `cbrt(x)`",
        Token::Assignment => {
            "a mart has no variables; name a column with AS, and give arguments in their order"
        }
        Token::RArrow => "give the arguments in their order, without names",
        Token::AtSign | Token::AtAt => {
            "a mart has no variables: write the value; the absolute value is `abs(x)`"
        }
        Token::HashArrow | Token::HashLongArrow => "write `json_extract_scalar(json, '$.a.b')`",
        Token::AtArrow | Token::ArrowAt => "write `array_has_all(a, b)`",
        Token::Placeholder(_) | Token::Question => {
            "a mart is given no values: write the value into the SQL"
        }
        _ => return None,
    };
    Some((format!("`{token}`"), instead))
}

/// A text in quotes of another kind.
fn literal(token: &Token) -> Option<(String, &'static str)> {
    const PLAIN: &str = "write `'…'`: a quote in it is doubled, a line break is `chr(10)`";
    let quotes = match token {
        Token::EscapedStringLiteral(_) => "`E'…'`",
        Token::NationalStringLiteral(_) | Token::NationalQuoteDelimitedStringLiteral(_) => "`N'…'`",
        Token::UnicodeStringLiteral(_) => "`U&'…'`",
        Token::DollarQuotedString(_) => "a text in dollar signs",
        Token::QuoteDelimitedStringLiteral(_) => "`Q'…'`",
        Token::SingleQuotedByteStringLiteral(_)
        | Token::DoubleQuotedByteStringLiteral(_)
        | Token::TripleSingleQuotedByteStringLiteral(_)
        | Token::TripleDoubleQuotedByteStringLiteral(_) => "`B'…'`",
        Token::SingleQuotedRawStringLiteral(_)
        | Token::DoubleQuotedRawStringLiteral(_)
        | Token::TripleSingleQuotedRawStringLiteral(_)
        | Token::TripleDoubleQuotedRawStringLiteral(_) => "`R'…'`",
        Token::TripleSingleQuotedString(_) | Token::TripleDoubleQuotedString(_) => {
            "a text in three quotes"
        }
        Token::HexStringLiteral(_) => {
            return Some((
                "a number or text of hexadecimal digits".to_owned(),
                "write the number with decimal digits; a text is `'…'`",
            ));
        }
        _ => return None,
    };
    Some((quotes.to_owned(), PLAIN))
}
