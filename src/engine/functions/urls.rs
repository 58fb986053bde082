//! The parts of a URL, by the grammar of RFC 3986. A text that breaks this grammar has no parts.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray};
use datafusion::common::Result;
use url::form_urlencoded;

use super::{Coercion, Definition, Given, Kind, gives_bigint, gives_text};

const fn part(name: &'static str) -> Definition {
    Definition {
        name,
        takes: Coercion::Kinds(1, &[Kind::Text]),
        gives: gives_text,
        make: parts,
    }
}

pub(super) const FUNCTIONS: &[Definition] = &[
    part("url_extract_protocol"),
    part("url_extract_host"),
    part("url_extract_path"),
    part("url_extract_query"),
    part("url_extract_fragment"),
    part("url_encode"),
    part("url_decode"),
    Definition {
        name: "url_extract_port",
        takes: Coercion::Kinds(1, &[Kind::Text]),
        gives: gives_bigint,
        make: ports,
    },
    Definition {
        name: "url_extract_parameter",
        takes: Coercion::Kinds(2, &[Kind::Text, Kind::Text]),
        gives: gives_text,
        make: parameters,
    },
];

/// A URL, taken apart. A part that is not there is empty.
#[derive(Default)]
struct Url<'a> {
    scheme: &'a str,
    host: &'a str,
    port: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    fragment: &'a str,
}

/// The parts of a URL; `None` where a text is no URL.
fn taken_apart(text: &str) -> Option<Url<'_>> {
    let is_wrong = |c: char| {
        c.is_whitespace()
            || c.is_control()
            || matches!(c, '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}')
    };
    if text.contains(is_wrong) {
        return None;
    }
    // A percent sign has two hexadecimal digits behind it.
    let is_encoded = |rest: &str| {
        let digits = rest.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !text.split('%').skip(1).all(is_encoded) {
        return None;
    }
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, Some(query)),
        None => (rest, None),
    };
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    };
    let (scheme, rest) = match rest.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => (scheme, rest),
        Some((before, _)) if !before.contains('/') => return None,
        _ => ("", rest),
    };
    let mut url = Url {
        scheme,
        path: rest,
        query,
        fragment,
        ..Url::default()
    };
    if let Some(rest) = rest.strip_prefix("//") {
        let end = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        url.path = path;
        let authority = authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host);
        let is_port = |port: &str| port.bytes().all(|digit| digit.is_ascii_digit());
        (url.host, url.port) = match authority.rsplit_once(':') {
            Some((host, port)) if is_port(port) => (host, port),
            _ => (authority, ""),
        };
    }
    Some(url)
}

/// A text without percent signs; bytes that are no UTF-8 become U+FFFD.
fn decoded(text: &str) -> String {
    // A form also writes a space as `+`, which a path does not.
    let kept = text.replace('+', "%2B");
    form(&kept)
}

/// A text of a form without percent signs and `+`.
fn form(text: &str) -> String {
    let text = text.replace('&', "%26").replace('=', "%3D");
    let mut pairs = form_urlencoded::parse(text.as_bytes());
    pairs
        .next()
        .map_or_else(String::new, |(name, _)| name.into_owned())
}

fn parts(given: &Given<'_>) -> Result<ArrayRef> {
    let made = given.text(0)?.iter().map(|text| {
        let text = text?;
        match given.name {
            "url_encode" => {
                return Some(form_urlencoded::byte_serialize(text.as_bytes()).collect());
            }
            "url_decode" => return Some(form(text)),
            _ => {}
        }
        let url = taken_apart(text)?;
        Some(match given.name {
            "url_extract_protocol" => url.scheme.to_owned(),
            "url_extract_host" => url.host.to_owned(),
            "url_extract_query" => decoded(url.query.unwrap_or_default()),
            "url_extract_fragment" => decoded(url.fragment),
            _ => decoded(url.path),
        })
    });
    Ok(Arc::new(made.collect::<StringArray>()))
}

fn ports(given: &Given<'_>) -> Result<ArrayRef> {
    let made = given
        .text(0)?
        .iter()
        .map(|text| taken_apart(text?)?.port.parse::<i64>().ok());
    Ok(Arc::new(made.collect::<arrow::array::Int64Array>()))
}

fn parameters(given: &Given<'_>) -> Result<ArrayRef> {
    let (texts, names) = (given.text(0)?, given.text(1)?);
    let made = (0..given.rows).map(|row| {
        if texts.is_null(row) || names.is_null(row) {
            return None;
        }
        let query = taken_apart(texts.value(row))?.query?;
        let found = query.split('&').find_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (form(name) == names.value(row)).then_some(value)
        });
        found.map(form)
    });
    Ok(Arc::new(made.collect::<StringArray>()))
}
