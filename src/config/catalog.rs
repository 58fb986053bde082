//! The catalog that readers find the tables in.

use serde::Serialize;

use super::ConfigError;
use super::table::{Table, choice};

/// The keys of the catalog.
pub(super) const CATALOG_KEYS: [&str; 4] = ["type", "database", "region", "endpoint"];

/// The database of the tables where nothing else is said.
const DATABASE: &str = "rawmart";

/// A catalog of tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Catalog {
    /// The service.
    #[serde(rename = "type")]
    pub kind: CatalogKind,
    /// The database that holds the tables.
    pub database: String,
    /// The region of the service. `None` is the region of the standard AWS chain.
    pub region: Option<String>,
    /// The URL of the service. `None` is the endpoint of the standard AWS chain.
    pub endpoint: Option<String>,
}

/// The service of a catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CatalogKind {
    /// The AWS Glue Data Catalog.
    Glue,
}

/// The catalog of a lake at this URL.
pub(super) fn catalog(table: &Table<'_>, lake: &str) -> Result<Catalog, ConfigError> {
    table.only(&CATALOG_KEYS)?;
    let kind = table.need("type", "write `type = \"glue\"`")?;
    let kind = kind.read(|text| choice(text, &[("glue", CatalogKind::Glue)]))?;
    if !lake.starts_with("s3://") {
        return Err(table.error_at(
            "type",
            format!(
                "Glue names tables in S3 alone, and the lake is {lake}: name a lake on s3://, or take `[catalog]` out"
            ),
        ));
    }
    let (region, endpoint) = (table.get("region"), table.get("endpoint"));
    Ok(Catalog {
        kind,
        database: table.text_or("database", DATABASE.to_owned(), database)?,
        region: region.map(|entry| entry.read(name_of_region)).transpose()?,
        endpoint: endpoint.map(|entry| entry.read(url)).transpose()?,
    })
}

fn name_of_region(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match !text.is_empty() && text.chars().all(fits) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "`{text}` is no region: write one such as `ap-northeast-2`"
        )),
    }
}

fn url(text: &str) -> Result<String, String> {
    let url = url::Url::parse(text).ok();
    let is_plain = |url: &url::Url| {
        let is_http = matches!(url.scheme(), "https" | "http");
        is_http && url.has_host() && url.username().is_empty() && url.password().is_none()
    };
    match url.as_ref().is_some_and(is_plain) {
        true => Ok(text.to_owned()),
        // Without the text: it may hold a secret.
        false => Err(
            "is no plain URL of a service: write one such as `https://glue.example.com`".to_owned(),
        ),
    }
}

/// A name that Athena, Spectrum and Hive take without quotes.
fn database(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let begins = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    match begins && text.chars().all(fits) && text.len() <= 255 {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "`{text}` is no name of a database: write lower-case letters, digits and `_`"
        )),
    }
}
