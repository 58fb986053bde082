//! The result of `verify` as text, with the steps of a repair before it.

use std::io::{Result, Write};

use super::{Reader, count, place, some};
use crate::run::{Note, Repaired, Verified};

/// Writes the result of `verify`.
pub fn verified(out: &mut impl Write, verified: &Verified, reader: &Reader<'_>) -> Result<()> {
    for what in &verified.repaired {
        repaired(out, what)?;
    }
    for damage in &verified.damage {
        writeln!(out, "DAMAGE {damage}")?;
    }
    for stray in &verified.strays {
        writeln!(
            out,
            "STRAY {stray}: it is not in the log, and readers count its rows; move it out of the table's folder"
        )?;
    }
    for what in &verified.notes {
        note(out, what)?;
    }
    let verdict = match (verified.damage.len(), verified.repaired.is_empty()) {
        (0, _) if !verified.strays.is_empty() => {
            let strays = count(verified.strays.len() as u64);
            format!("every file is as the log says, and {strays} stray files were found")
        }
        (0, _) => "every file is as the log says, and every count balances".to_owned(),
        (n, true) => {
            let repair = reader.typing.command("verify --repair");
            format!("{} faults; `{repair}` repairs", count(n as u64))
        }
        (n, false) => format!("{} faults are left", count(n as u64)),
    };
    writeln!(
        out,
        "{}: {} files ({} of them read), {} raw objects, {} commits; {verdict}.",
        place(&verified.lake, reader.here),
        count(verified.files),
        count(verified.files_read),
        count(verified.objects),
        count(verified.commits),
    )
}

fn repaired(out: &mut impl Write, repaired: &Repaired) -> Result<()> {
    match repaired {
        Repaired::Marked { commit } => {
            writeln!(out, "repaired commit {commit}: its marker was made again")?;
        }
        Repaired::RolledForward { commit } => {
            writeln!(out, "repaired commit {commit}: it was published")?;
        }
        Repaired::Noted { key } => {
            writeln!(
                out,
                "repaired {key}: it has the published content, and its ETag was noted"
            )?;
        }
        Repaired::PutBack { key } => {
            writeln!(out, "repaired {key}: published from its staged copy")?;
        }
        Repaired::MadeAgain { key } => writeln!(out, "repaired {key}: made again")?,
        Repaired::SetAside { key } => writeln!(
            out,
            "repaired {key}: the object there was moved away, on disk to _rawmart/aside"
        )?,
    }
    Ok(())
}

fn note(out: &mut impl Write, note: &Note) -> Result<()> {
    match note {
        Note::Gone { source, keys } => writeln!(
            out,
            "note {source}: {} absorbed raw objects are gone: {}; their events stay",
            count(keys.len() as u64),
            some(keys)
        )?,
        Note::Changed { source, keys } => writeln!(
            out,
            "note {source}: {} absorbed raw objects have other content now: {}",
            count(keys.len() as u64),
            some(keys)
        )?,
        Note::Dropped { source, keys } => writeln!(
            out,
            "note {source}: {} raw objects were dropped for good: {}; `rawmart history` names the commits",
            count(keys.len() as u64),
            some(keys)
        )?,
        Note::Unlisted { source, why } => {
            writeln!(out, "note {source}: the raw objects were not listed: {why}")?;
        }
        Note::GoneMart { mart, damaged } => {
            let files = match damaged.is_empty() {
                true => String::new(),
                false => format!(
                    ", and {} of its data files are not as published: {}",
                    count(damaged.len() as u64),
                    some(damaged)
                ),
            };
            writeln!(
                out,
                "note {mart}: its SQL file is gone{files}; put the file back, or `rawmart marts --drop {mart}`"
            )?;
        }
        Note::NotBuilt { mart, why } => writeln!(out, "note {mart}: not built: {why}")?,
        Note::NoSha256 { files } => writeln!(
            out,
            "note: the log has no SHA-256 of {} files, so only their names, sizes and times were compared; the \
             next commit that writes them notes it",
            count(*files)
        )?,
        Note::Hidden { keys } => writeln!(
            out,
            "note: {} keys below tables are not in the log, and readers ignore them: {}",
            count(keys.len() as u64),
            some(keys)
        )?,
    }
    Ok(())
}
