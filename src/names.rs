//! The name that somebody meant who wrote another: for messages that end in "is it `…`?". Pure.

/// How many slips of the fingers lie between two texts: a character left out, added, replaced, or changed
/// over with its neighbour.
pub fn slips(written: &str, known: &str) -> usize {
    strsim::damerau_levenshtein(written, known)
}

/// The known name that was probably meant by `written`: at most a third of its characters differ, or it
/// begins with `written`. `None` where no name is that near. Capitals make no difference.
pub fn nearest<'k>(written: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let written = written.to_lowercase();
    let length = written.chars().count();
    let near = known.into_iter().filter_map(|name| {
        let lower = name.to_lowercase();
        let apart = slips(&written, &lower);
        let most = (length.max(lower.chars().count()) / 3).max(1);
        let begins = length >= 3 && lower.starts_with(&written);
        (begins || apart <= most).then_some((apart, name))
    });
    near.min().map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_meant_or_none() {
        let known = [
            "user_id",
            "event_time",
            "household_count",
            "naive_timezone",
            "os",
        ];
        for (written, meant) in [
            ("userid", Some("user_id")),
            ("uesr_id", Some("user_id")),
            ("USER_ID", Some("user_id")),
            ("household", Some("household_count")),
            ("naive", Some("naive_timezone")),
            ("eventtme", Some("event_time")),
            ("o", Some("os")),
            ("page", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, known), meant, "{written}");
        }
        // Where two names are equally near, the first in alphabetical order is meant: the order of the list has no
        // meaning.
        assert_eq!(nearest("ab", ["ac", "aa"]), Some("aa"));
    }
}
