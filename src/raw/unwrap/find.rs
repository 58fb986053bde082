//! Finds a member of a JSON object by its path, and names the kinds of values.

use super::super::json::{ObjectMembers, Skipper, unescape};

/// The text of the value at a path in a valid JSON object. Of members with one name the last counts. `None` where there
/// is no such member.
pub(super) fn find<'a>(object: &'a str, path: &[impl AsRef<str>]) -> Option<&'a str> {
    let mut skipper = Skipper::new(u32::MAX);
    let mut value = object;
    for name in path {
        if !value.starts_with('{') {
            return None;
        }
        let members = ObjectMembers::of(value, &mut skipper);
        let named = members.filter(|member| {
            member.name == name.as_ref()
                || member.name.contains('\\')
                    && unescape(member.name).is_some_and(|found| found == name.as_ref())
        });
        value = named.last()?.value;
    }
    Some(value)
}

/// The kind of a JSON value, in words.
pub(super) fn found(value: &str) -> &'static str {
    match value.as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "text",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}
