//! What will be done: a pure value that `plan` prints and `run` executes.
//!
//! ```text
//! Job ─────────┐
//! Discovered ──┤
//! State ───────┼──▶ RunPlan ──▶ printed │ executed
//! mart graph ──┘
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::config::{Job, Source};
use crate::ledger::State;
use crate::mart::Mart;
use crate::raw::{Discovered, Found};

/// What a run will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunPlan {
    /// A commit that an earlier run made and did not publish.
    pub roll_forward: Option<u64>,
    pub sources: Vec<SourcePlan>,
    pub marts: Vec<MartPlan>,
}

/// What will be done for one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourcePlan {
    pub source: String,
    /// Why its tables are built; `None` when nothing is to be done.
    pub why: Option<Why>,
    /// Raw objects listed, and their bytes.
    pub objects: u64,
    pub bytes: u64,
    /// Of these, not yet absorbed.
    pub new_objects: u64,
    pub new_bytes: u64,
    /// Keys that hold no events, by why.
    pub skipped: BTreeMap<&'static str, Vec<String>>,
    /// Absorbed raw objects whose content is another now.
    pub changed: Vec<String>,
    /// Absorbed raw objects that are not listed any more.
    pub vanished: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    First,
    NewObjects,
    SettingsChanged,
}

/// Whether and why a mart will be built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MartPlan {
    pub mart: String,
    /// `None` when it is fresh.
    pub why: Option<WhyMart>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyMart {
    First,
    SqlChanged,
    /// The tables that changed or will.
    InputsChanged(Vec<String>),
}

impl RunPlan {
    /// Nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.roll_forward.is_none()
            && self.sources.iter().all(|source| source.why.is_none())
            && self.marts.iter().all(|mart| mart.why.is_none())
    }
}

/// What a source is found to hold.
pub struct Listed<'a> {
    pub source: &'a Source,
    pub found: &'a Discovered,
    /// Absorbed objects whose content is another now.
    pub changed: Vec<String>,
}

/// Plans a run. `references` holds the fingerprint of each reference's content.
pub fn plan(
    job: &Job,
    listed: &[Listed<'_>],
    state: &State,
    marts: &[Mart],
    references: &BTreeMap<String, String>,
) -> RunPlan {
    let mut moved: BTreeSet<String> = BTreeSet::new();
    let sources: Vec<SourcePlan> = listed
        .iter()
        .map(|listed| {
            let plan = plan_source(job, listed, state);
            if plan.why.is_some() {
                let name = &plan.source;
                moved.extend([
                    name.clone(),
                    format!("{name}_duplicates"),
                    format!("{name}_rejects"),
                ]);
            }
            plan
        })
        .collect();
    let marts = marts
        .iter()
        .map(|mart| {
            let why = why_mart(mart, state, references, &moved);
            if why.is_some() {
                moved.insert(mart.name.clone());
            }
            MartPlan {
                mart: mart.name.clone(),
                why,
            }
        })
        .collect();
    RunPlan {
        roll_forward: state.unpublished.as_ref().map(|commit| commit.number),
        sources,
        marts,
    }
}

fn plan_source(job: &Job, listed: &Listed<'_>, state: &State) -> SourcePlan {
    let known = state.sources.get(&listed.source.name);
    let absorbed =
        |found: &Found| known.is_some_and(|known| known.objects.contains_key(&found.identity));
    let (mut bytes, mut new_objects, mut new_bytes) = (0, 0, 0);
    for found in &listed.found.objects {
        bytes += found.size;
        if !absorbed(found) {
            new_objects += 1;
            new_bytes += found.size;
        }
    }
    let listed_names: BTreeSet<&str> = listed
        .found
        .objects
        .iter()
        .map(|found| found.identity.as_str())
        .collect();
    let vanished = known.map_or_else(Vec::new, |known| {
        known
            .objects
            .keys()
            .filter(|key| !listed_names.contains(key.as_str()))
            .cloned()
            .collect()
    });
    let why = match known {
        _ if new_objects == 0 && known.is_none() => None,
        None => Some(Why::First),
        Some(known) if known.settings != settings(job, listed.source) => Some(Why::SettingsChanged),
        Some(_) if new_objects > 0 => Some(Why::NewObjects),
        Some(_) => None,
    };
    let found = listed.found;
    let skipped = [
        ("hidden", &found.hidden),
        ("excluded", &found.excluded),
        ("unrepresentable", &found.unrepresentable),
    ];
    SourcePlan {
        source: listed.source.name.clone(),
        why,
        objects: found.objects.len() as u64,
        bytes,
        new_objects,
        new_bytes,
        skipped: skipped
            .into_iter()
            .filter(|(_, keys)| !keys.is_empty())
            .map(|(why, keys)| (why, keys.clone()))
            .collect(),
        changed: listed.changed.clone(),
        vanished,
    }
}

fn why_mart(
    mart: &Mart,
    state: &State,
    references: &BTreeMap<String, String>,
    moved: &BTreeSet<String>,
) -> Option<WhyMart> {
    let Some(built) = state.marts.get(&mart.name) else {
        return Some(WhyMart::First);
    };
    if built.entry.sql != mart.fingerprint {
        return Some(WhyMart::SqlChanged);
    }
    let changed: Vec<String> = mart
        .inputs
        .iter()
        .filter(|&input| {
            moved.contains(input)
                || built.entry.inputs.get(input) != Some(&version(input, state, references))
        })
        .cloned()
        .collect();
    (!changed.is_empty()).then_some(WhyMart::InputsChanged(changed))
}

/// What the content of a mart's input follows from.
pub fn version(input: &str, state: &State, references: &BTreeMap<String, String>) -> String {
    match references.get(input) {
        Some(fingerprint) => fingerprint.clone(),
        None => state.version(input).to_string(),
    }
}

/// The settings that decide the content of a source's tables, as one value that changes with them.
pub fn settings(job: &Job, source: &Source) -> String {
    use sha2::{Digest, Sha256};
    let settings = (
        &source.decode,
        &source.rules,
        source.partition_by,
        source.slice_ms,
        job.timezone,
        (&source.layout, source.layout_timezone),
    );
    // Plain values without maps: serialising them cannot fail, and their order is fixed.
    let text = serde_json::to_vec(&settings).unwrap_or_default();
    hex::encode(Sha256::digest(text))
}
