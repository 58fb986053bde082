//! Runs one step once over a small fixed input, so that `benches/instructions` can count its instructions.

#[expect(dead_code, reason = "names and counts are for who writes them")]
mod data;
#[expect(dead_code, reason = "lengths are for speeds")]
mod steps;

use std::hint::black_box;

use data::Result;
use steps::Input;

const RECORDS: u64 = 20_000;

fn main() -> Result<()> {
    let part = std::env::args().nth(1).unwrap_or_default();
    let input = Input::new(RECORDS)?;
    match part.as_str() {
        "decode" => counted_instructions(&mut || input.decode()),
        "verdicts" => {
            let (batches, records) = input.batches()?;
            let narrow = input.narrow(&batches, &records)?;
            counted_instructions(&mut || {
                let mut dropped = input.verdicts(&narrow)?;
                let mut count = 0;
                while dropped.pop()?.is_some() {
                    count += 1;
                }
                Ok(count)
            })
        }
        _ => Err("name a part: decode, verdicts".into()),
    }
}

/// Callgrind finds this function by its name. It counts all threads together, and only verdicts start any.
#[inline(never)]
fn counted_instructions(step: &mut dyn FnMut() -> Result<u64>) -> Result<()> {
    match black_box(step()?) {
        0 => Err("the input is too small".into()),
        _ => Ok(()),
    }
}
