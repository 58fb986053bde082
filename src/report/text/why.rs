//! What became of events and of records, as text.

use std::io::{Result, Write};
use std::path::Path;

use super::{count, place, shown};
use crate::config::show_duration;
use crate::run::{Absent, AbsentRecord, CommitOf, Displacement, Fate, Match, Verdict, Why};

/// The most characters of a rejected record that are shown.
const SHOWN: usize = 300;

/// Writes the fate of each event or record that was asked for, for somebody in the folder `here`.
pub fn why(out: &mut impl Write, why: &Why, here: Option<&Path>) -> Result<()> {
    let lake = place(&why.lake, here);
    let asked = shown(&why.asked);
    let more = match why.matches.len() as u64 {
        told if told < why.found => format!(", of which the first {told} are told"),
        _ => String::new(),
    };
    match why.found {
        0 => writeln!(
            out,
            "{asked}: no row of {lake} after {} commits",
            why.last_commit
        )?,
        1 => writeln!(out, "{asked}: 1 row")?,
        n => writeln!(out, "{asked}: {} rows{more}", count(n))?,
    }
    for found in &why.matches {
        writeln!(out)?;
        matched(out, found, &lake)?;
    }
    match &why.absent {
        Some(absent) => self::absent(out, absent, &lake),
        None => Ok(()),
    }
}

fn matched(out: &mut impl Write, found: &Match, lake: &str) -> Result<()> {
    for (at, fate) in found.chain.iter().enumerate() {
        if at > 0 {
            writeln!(out, "  displaced by")?;
        }
        self::fate(out, fate, lake)?;
    }
    match (found.complete, found.chain.len()) {
        (true, _) => Ok(()),
        (false, 1) => writeln!(
            out,
            "  the event that displaced it is in no table: `rawmart verify` says whether the lake is damaged"
        ),
        (false, n) => writeln!(out, "  the chain is longer; its first {n} events are told"),
    }
}

fn fate(out: &mut impl Write, fate: &Fate, lake: &str) -> Result<()> {
    let verdict = match fate.verdict {
        Verdict::Kept => "kept",
        Verdict::Duplicate => "duplicate",
        Verdict::Reject => "reject",
    };
    let time = fate.event_time.as_deref().unwrap_or("");
    let (object, record) = (shown(&fate.raw_object), fate.raw_record);
    match time {
        "" => writeln!(out, "{verdict}: record {record} of {object}")?,
        time => writeln!(
            out,
            "{verdict}: event of {time}, record {record} of {object}"
        )?,
    }
    if let Some(displacement) = &fate.displaced {
        displaced(out, displacement)?;
    }
    if let Some(rejected) = &fate.rejected {
        let detail = rejected.detail.as_deref().unwrap_or_default();
        writeln!(out, "  reason    {}: {}", rejected.reason, shown(detail))?;
        if let Some(text) = &rejected.raw_text {
            let cut: String = text.chars().take(SHOWN).collect();
            let end = if cut.len() < text.len() { "…" } else { "" };
            writeln!(out, "  text      {}{end}", shown(&cut))?;
        }
    }
    if let Some(file) = &fate.file {
        writeln!(out, "  file      {lake}/{file}")?;
    }
    match (&fate.absorbed, &fate.written) {
        (Some(absorbed), Some(written)) if absorbed == written => {
            writeln!(out, "  decided   by {}", commit(written))
        }
        (absorbed, written) => {
            if let Some(absorbed) = absorbed {
                writeln!(out, "  absorbed  by {}", commit(absorbed))?;
            }
            match written {
                Some(written) => writeln!(out, "  decided   by {} at the latest", commit(written)),
                None => Ok(()),
            }
        }
    }
}

fn commit(of: &CommitOf) -> String {
    format!("commit {} of run {} at {}", of.commit, of.run, of.at)
}

fn displaced(out: &mut impl Write, displacement: &Displacement) -> Result<()> {
    let key = displacement.key.iter().map(|part| {
        let value = part.value.as_deref().map_or_else(|| "?".to_owned(), shown);
        format!("{} = {value}", part.expression)
    });
    let key: Vec<String> = key.collect();
    let key = match key.is_empty() {
        true => ", which the log does not have any more".to_owned(),
        false => format!(": same {}", key.join(", ")),
    };
    writeln!(out, "  rule      {}{key}", displacement.rule)?;
    let window = displacement.within_ms.map(show_duration);
    let window = window.map(|window| format!(" (the rule says within {window})"));
    let Some(distance) = displacement.distance_ms else {
        return Ok(());
    };
    let apart = match distance {
        0.0 => "at the same time as the event that displaced it".to_owned(),
        ms if ms > 0.0 => format!("{} after the event that displaced it", seconds(ms)),
        ms => format!("{} before the event that displaced it", seconds(-ms)),
    };
    writeln!(out, "  distance  {apart}{}", window.unwrap_or_default())
}

/// Milliseconds as seconds, without zeros at the end.
fn seconds(ms: f64) -> String {
    let text = format!("{:.6}", ms / 1_000.0);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text} s")
}

fn absent(out: &mut impl Write, absent: &Absent, lake: &str) -> Result<()> {
    for record in &absent.records {
        let text = match record {
            AbsentRecord::FewRecords {
                source,
                object,
                records,
            } => format!(
                "{source} has absorbed {}, which has only {} records",
                shown(object),
                count(*records)
            ),
            AbsentRecord::OtherValues {
                source,
                object,
                events,
                rejects,
            } => format!(
                "{source} has absorbed {}, which has {} events and {} rejects; none of them has these values",
                shown(object),
                count(*events),
                count(*rejects)
            ),
            AbsentRecord::Lost { source, object } => format!(
                "{source} has absorbed {} with this record, but no table has it: run `rawmart verify`",
                shown(object)
            ),
            AbsentRecord::Dropped {
                source,
                object,
                commit,
            } => format!(
                "{source}: commit {commit} dropped {} for good (`rawmart history {commit}`)",
                shown(object)
            ),
            AbsentRecord::NotAbsorbed { source, url } => format!(
                "{source} has not absorbed {} yet: `rawmart run` does",
                shown(url)
            ),
            AbsentRecord::Excluded { source, url } => format!(
                "{source} excludes {}: its name is hidden, or a glob of `exclude` matches it",
                shown(url)
            ),
            AbsentRecord::NeverSeen { .. } => never_seen(record),
        };
        writeln!(out, "  {text}")?;
    }
    writeln!(
        out,
        "  compared: {} rows in {} data files",
        count(absent.rows),
        count(absent.files)
    )?;
    if absent.rejects > 0 {
        let told = match absent.rejected.len() as u64 {
            told if told < absent.rejects => format!(", of which the first {told} are told"),
            _ => String::new(),
        };
        let n = count(absent.rejects);
        writeln!(
            out,
            "  rejects that have the value in their text: {n}{told}"
        )?;
        for fate in &absent.rejected {
            writeln!(out)?;
            self::fate(out, fate, lake)?;
        }
        return Ok(());
    }
    if absent.records.is_empty() {
        writeln!(
            out,
            "  Raw objects that no run has absorbed are not searched: `rawmart plan` says whether there are any"
        )?;
    }
    Ok(())
}

fn never_seen(record: &AbsentRecord) -> String {
    let AbsentRecord::NeverSeen {
        source,
        url,
        beside,
    } = record
    else {
        return String::new();
    };
    let mut text = format!("{source} has never seen {}", shown(url));
    if let Some(beside) = beside {
        text.push_str(&format!(
            ": {} holds {} objects, {} of them absorbed and {} excluded",
            shown(&beside.folder),
            count(beside.objects),
            count(beside.absorbed),
            count(beside.excluded)
        ));
        if let Some(near) = &beside.nearest {
            text.push_str(&format!("; is it {}?", shown(near)));
        }
    }
    text
}
