//! Reads the tables of the documentation, for the tests that compare them with the code.

/// The rows of the first table below the heading `## heading` or `### heading`, without its head. Cells keep
/// their backticks.
pub(crate) fn table(page: &str, heading: &str) -> Vec<Vec<String>> {
    let mut lines = page
        .lines()
        .skip_while(|line| line.trim_start_matches('#').trim() != heading || !line.starts_with('#'))
        .skip(1)
        .take_while(|line| !line.starts_with('#'))
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'));
    assert!(
        lines.next().is_some(),
        "no table below the heading {heading:?}"
    );
    assert!(lines.next().is_some_and(|line| line.starts_with("|---")));
    lines
        .map(|line| {
            let cells = line.trim_matches('|').replace("\\|", "\u{1}");
            let cells = cells.split('|').map(str::trim);
            cells.map(|cell| cell.replace('\u{1}', "|")).collect()
        })
        .collect()
}

/// The text of a cell that is wholly between backticks.
pub(crate) fn code(cell: &str) -> Option<&str> {
    let inner = cell.strip_prefix('`')?.strip_suffix('`')?;
    (!inner.contains('`')).then_some(inner)
}
