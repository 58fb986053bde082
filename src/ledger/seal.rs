//! The seal of an object of the log: the SHA-256 of the JSON before it, as its last member.
//!
//! ```text
//! {"format":2,"number":7, … ,"seal":"<64 hex digits>"}
//! └──── the bytes before it, and `}` ────┘ hashed
//! ```
//!
//! JSON with a changed digit is still JSON, and without a seal a wrong count or key would be believed. Builds
//! that know no seal ignore the member. Objects from before there were seals have none.

use sha2::{Digest, Sha256};

const BEFORE: &[u8] = b",\"seal\":\"";
const DIGITS: usize = 64;
const AFTER: &[u8] = b"\"}";

/// Adds a seal to the text of a JSON object that has members.
pub(super) fn sealed(mut json: Vec<u8>) -> Vec<u8> {
    let digits = hex::encode(Sha256::digest(&json));
    json.truncate(json.len().saturating_sub(1));
    json.extend_from_slice(BEFORE);
    json.extend_from_slice(digits.as_bytes());
    json.extend_from_slice(AFTER);
    json
}

/// Checks the seal of an object. Objects without a seal pass.
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
        false => Err("its seal does not match its content".to_owned()),
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
