//! The seal of what the log holds: a SHA-256 of the JSON before it, as its last member.
//!
//! ```text
//! {"format":2,"number":7, … ,"seal":"<64 hex digits>"}
//! └──── the bytes before it, and `}` ────┘ hashed
//! ```
//!
//! JSON with a changed digit is JSON as well, and a count or a key that is another would be believed. Readers
//! that know no seal pass over a member that they do not know; what earlier builds wrote has none.

use sha2::{Digest, Sha256};

const BEFORE: &[u8] = b",\"seal\":\"";
const DIGITS: usize = 64;
const AFTER: &[u8] = b"\"}";

/// The text of a JSON object that has members, with its seal.
pub(super) fn sealed(mut json: Vec<u8>) -> Vec<u8> {
    let digits = hex::encode(Sha256::digest(&json));
    json.truncate(json.len().saturating_sub(1));
    json.extend_from_slice(BEFORE);
    json.extend_from_slice(digits.as_bytes());
    json.extend_from_slice(AFTER);
    json
}

/// Says what is wrong where there is a seal that is not of these bytes.
pub(super) fn check(bytes: &[u8]) -> Result<(), String> {
    let at = bytes.len().checked_sub(BEFORE.len() + DIGITS + AFTER.len());
    let Some((json, seal)) = at.and_then(|at| bytes.split_at_checked(at)) else {
        return Ok(());
    };
    let Some(seal) = seal.strip_prefix(BEFORE) else {
        return Ok(());
    };
    let hash = Sha256::new()
        .chain_update(json)
        .chain_update(b"}")
        .finalize();
    match seal == [hex::encode(hash).as_bytes(), AFTER].concat() {
        true => Ok(()),
        false => Err("its seal is not of what it says".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_byte_can_change_without_a_word() {
        #[derive(serde::Deserialize)]
        struct Known {
            n: u64,
            t: String,
        }
        let json = br#"{"n":12,"t":"dt=2019-04-02"}"#.to_vec();
        assert_eq!(check(&json), Ok(()), "an earlier build sealed nothing");
        let sealed = sealed(json);
        assert_eq!(check(&sealed), Ok(()));
        let known: Known = serde_json::from_slice(&sealed).unwrap();
        assert_eq!((known.n, known.t.as_str()), (12, "dt=2019-04-02"));
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut flipped = sealed.clone();
                flipped[at] ^= 1 << bit;
                let read = serde_json::from_slice::<Known>(&flipped);
                let same = |read: &Known| (read.n, read.t.as_str()) == (12, "dt=2019-04-02");
                assert!(
                    check(&flipped).is_err() || read.is_err() || read.is_ok_and(|read| same(&read)),
                    "bit {bit} of byte {at}"
                );
            }
        }
    }
}
