//! The resolved configuration as a file: the text that `rawmart config` shows loads to the same job.

use std::fmt::{self, Display, Write};

use chrono::{DateTime, SecondsFormat};
use serde::Serialize;
use toml::Value;

use super::{Job, Reference, Rule, Source, units};

impl Job {
    /// All settings with their defaults filled in, as TOML. The text holds no secret, because a configuration cannot
    /// hold one.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "# resolved from {:?}", self.file)?;
        line(out, "lake", text(&self.lake))?;
        line(out, "timezone", text(self.timezone))?;
        line(out, "memory", text(units::show_size(self.memory)))?;
        writeln!(out, "threads = {}", self.threads)?;
        if let Some(folder) = &self.spill_dir {
            line(out, "spill_dir", text(folder.display()))?;
        }
        line(out, "single_writer", Value::Boolean(self.single_writer))?;
        if let Some(encryption) = &self.encryption {
            line(out, "sse", text(encryption.algorithm))?;
            if let Some(key) = &encryption.key {
                line(out, "sse_key", text(key))?;
            }
            if let Some(bucket_key) = encryption.bucket_key {
                line(out, "sse_bucket_key", Value::Boolean(bucket_key))?;
            }
        }
        line(out, "requester_pays", Value::Boolean(self.requester_pays))?;
        if let Some(readers) = &self.readers {
            let names = readers.iter().map(|reader| text(reader.name()));
            line(out, "readers", Value::Array(names.collect()))?;
        }
        line(out, "publish", name(&self.publish))?;
        line(out, "retain", text(units::show_duration(self.retain_ms)))?;
        for source in &self.sources {
            source.write(out)?;
        }
        for reference in &self.references {
            reference.write(out)?;
        }
        if let Some(path) = &self.marts {
            writeln!(out, "\n[marts]")?;
            line(out, "path", text(path.display()))?;
        }
        if let Some(catalog) = &self.catalog {
            writeln!(out, "\n[catalog]")?;
            line(out, "type", name(&catalog.kind))?;
            line(out, "database", text(&catalog.database))?;
            for (key, value) in [("region", &catalog.region), ("endpoint", &catalog.endpoint)] {
                if let Some(value) = value {
                    line(out, key, text(value))?;
                }
            }
        }
        Ok(())
    }
}

impl Source {
    fn write(&self, out: &mut String) -> fmt::Result {
        let decode = &self.decode;
        writeln!(out, "\n[sources.{}]", self.name)?;
        match self.raw.as_slice() {
            [root] if root.name.is_none() => line(out, "raw", text(&root.url))?,
            roots => {
                let roots: Vec<_> = roots
                    .iter()
                    .map(|root| {
                        let name = root.name.as_deref().unwrap_or_default();
                        format!("{name} = {}", text(&root.url))
                    })
                    .collect();
                writeln!(out, "raw = {{ {} }}", roots.join(", "))?;
            }
        }
        match &self.layout {
            Some(layout) => line(out, "layout", text(layout))?,
            None => line(out, "layout", Value::Boolean(false))?,
        }
        line(out, "layout_timezone", text(self.layout_timezone))?;
        line(out, "exclude", texts(&self.exclude))?;
        if !decode.unwrap.is_empty() {
            line(
                out,
                "unwrap",
                Value::Array(decode.unwrap.iter().map(name).collect()),
            )?;
        }
        line(out, "event_time", text(&decode.event_time))?;
        line(out, "partition_by", name(&self.partition_by))?;
        line(out, "slice", text(units::show_duration(self.slice_ms)))?;
        line(out, "timestamp_unit", name(&decode.unit))?;
        if let Some(zone) = decode.naive_timezone {
            line(out, "naive_timezone", text(zone))?;
        }
        if let Some(zone) = decode.epoch_timezone {
            line(out, "epoch_timezone", text(zone))?;
        }
        let from = DateTime::from_timestamp_millis(decode.accept.from_ms)
            .unwrap_or_default()
            .to_rfc3339_opts(SecondsFormat::AutoSi, true);
        writeln!(
            out,
            "accept = {{ from = {}, ahead = {} }}",
            text(from),
            text(units::show_duration(decode.accept.ahead_ms))
        )?;
        line(out, "on_type_error", name(&decode.on_type_error))?;
        line(
            out,
            "max_rejects",
            text(units::show_share(self.max_rejects)),
        )?;
        let limits = &decode.limits;
        line(
            out,
            "max_record_bytes",
            text(units::show_size(limits.max_record_bytes)),
        )?;
        line(
            out,
            "max_object_bytes",
            text(units::show_size(limits.max_object_bytes)),
        )?;
        line(out, "on_changed_object", name(&self.on_changed_object))?;
        if let Some(settled) = self.settled_ms {
            line(out, "settled", text(units::show_duration(settled)))?;
        }
        if let Some(fresh_within) = self.fresh_within_ms {
            line(
                out,
                "fresh_within",
                text(units::show_duration(fresh_within)),
            )?;
        }
        line(out, "compression", name(&self.compression))?;
        line(out, "bloom_filters", texts(&self.bloom_filters))?;
        self.write_columns(out)?;
        self.write_rules(out)
    }

    fn write_columns(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "\n[sources.{}.columns]", self.name)?;
        for column in &self.decode.columns {
            let mut parts = vec![format!("type = {}", text(&column.kind))];
            if column.path != [column.name.as_str()] {
                parts.push(format!("path = {}", texts(&column.path)));
            }
            if let Some(default) = column
                .default
                .as_ref()
                .and_then(|v| Value::try_from(v).ok())
            {
                parts.push(format!("default = {default}"));
            }
            if column.required {
                parts.push("required = true".to_owned());
            }
            if !column.paths.is_empty() {
                let paths = column.paths.iter();
                let paths = paths.map(|(place, path)| format!("{} = {}", text(place), texts(path)));
                let paths: Vec<_> = paths.collect();
                parts.push(format!("paths = {{ {} }}", paths.join(", ")));
            }
            if column.coerce {
                parts.push("coerce = true".to_owned());
            }
            if !column.time_formats.is_empty() {
                parts.push(format!("time_formats = {}", texts(&column.time_formats)));
            }
            match parts.as_slice() {
                [_] => line(out, &column.name, text(&column.kind))?,
                parts => writeln!(out, "{} = {{ {} }}", column.name, parts.join(", "))?,
            }
        }
        Ok(())
    }

    fn write_rules(&self, out: &mut String) -> fmt::Result {
        for rule in &self.rules {
            writeln!(out)?;
            rule.write(&self.name, out)?;
        }
        Ok(())
    }
}

impl Rule {
    /// The rule as a configuration file spells it, for the source with this name.
    pub fn toml(&self, source: &str) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write(source, &mut out);
        out
    }

    fn write(&self, source: &str, out: &mut String) -> fmt::Result {
        writeln!(out, "[[sources.{source}.dedup]]")?;
        line(out, "name", text(&self.name))?;
        if let Some(when) = &self.when {
            line(out, "when", text(when))?;
        }
        line(out, "key", texts(&self.key))?;
        line(out, "within", text(units::show_duration(self.within_ms)))?;
        line(out, "mode", name(&self.mode))?;
        for (key, day) in [("since", self.since), ("until", self.until)] {
            if let Some(day) = day {
                line(out, key, text(day))?;
            }
        }
        Ok(())
    }
}

impl Reference {
    fn write(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "\n[references.{}]", self.name)?;
        line(out, "path", text(&self.url))?;
        line(out, "format", name(&self.format))?;
        let encoding = self.encoding.name().to_ascii_lowercase();
        match self.format {
            super::ReferenceFormat::Csv => {
                line(out, "null", texts(&self.null))?;
                line(out, "delimiter", text(char::from(self.delimiter)))?;
                line(out, "encoding", text(&encoding))?;
            }
            super::ReferenceFormat::Ndjson => line(out, "encoding", text(&encoding))?,
            super::ReferenceFormat::Parquet => {}
        }
        if let Some(columns) = &self.columns {
            let columns: Vec<_> = columns
                .iter()
                .map(|(name, kind)| format!("{name} = {}", text(kind)))
                .collect();
            writeln!(out, "columns = {{ {} }}", columns.join(", "))?;
        }
        Ok(())
    }
}

fn line(out: &mut String, key: &str, value: Value) -> fmt::Result {
    writeln!(out, "{key} = {value}")
}

fn text(value: impl Display) -> Value {
    Value::String(value.to_string())
}

fn texts(values: &[String]) -> Value {
    Value::Array(values.iter().map(text).collect())
}

/// A choice as the file spells it.
fn name(value: &impl Serialize) -> Value {
    Value::try_from(value).unwrap_or(Value::Boolean(false))
}
