//! Where things lie: a path or URL as it was written becomes an absolute `file://` or `s3://` URL.

use std::path::{Component, Path, PathBuf};

use url::Url;

/// The URL of a folder. It is absolute and ends with `/`.
///
/// # Errors
/// The text is empty, or is no URL and no path that can be used.
pub fn folder_url(text: &str, base: &Path) -> Result<String, String> {
    let mut url = locate(text, base)?;
    if !url.ends_with('/') {
        url.push('/');
    }
    Ok(url)
}

/// The URL of one file.
pub(super) fn file_url(text: &str, base: &Path) -> Result<String, String> {
    let url = locate(text, base)?;
    let names_file = Url::parse(&url).is_ok_and(|url| url.path().len() > 1);
    if !names_file || url.ends_with('/') || text.ends_with('/') {
        return Err(format!("`{text}` is a folder: name one file"));
    }
    Ok(url)
}

/// The absolute local path that a text means.
pub(super) fn local_path(text: &str, base: &Path) -> Result<PathBuf, String> {
    let url = locate(text, base)?;
    let url = Url::parse(&url).map_err(|error| format!("`{text}` is no URL: {error}"))?;
    if url.scheme() != "file" {
        return Err(format!(
            "`{text}` is no local folder: keep the SQL files beside the configuration"
        ));
    }
    url.to_file_path()
        .map_err(|()| format!("`{text}` is no local path"))
}

/// Whether one of two URLs of folders is the other, or lies within it.
pub(super) fn overlap(a: &str, b: &str) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

/// The URL of a folder with all symbolic links on the way to it followed, as far as the folders exist. The URL of a
/// bucket stays as it is.
pub(super) fn resolved(url: &str) -> String {
    let local = Url::parse(url).ok().filter(|url| url.scheme() == "file");
    let Some(path) = local.and_then(|url| url.to_file_path().ok()) else {
        return url.to_owned();
    };
    let real = path.ancestors().find_map(|above| {
        let rest = path.strip_prefix(above).ok()?;
        Some(above.canonicalize().ok()?.join(rest))
    });
    real.and_then(|real| Url::from_directory_path(real).ok())
        .map_or_else(|| url.to_owned(), String::from)
}

/// The message about a URL that may hold a secret.
const CREDENTIALS: &str = "has a user or key before `@`: credentials never come from this file, S3 uses \
                           the standard AWS chain; take that part out";

/// Schemes of URLs. A text that begins with one is no folder of this machine, also where a part of the URL was
/// forgotten.
const SCHEMES: [&str; 16] = [
    "s3", "s3a", "s3n", "gs", "gcs", "az", "abfs", "abfss", "wasb", "wasbs", "oss", "hdfs", "http",
    "https", "ftp", "file",
];

/// Refuses a path that was meant as a URL: `s3:/b/x`, `s3:b/x`, `s3//b/x`, `gs:/b`.
fn refuse_url_like(text: &str) -> Result<(), String> {
    let (first, rest) = text.split_once('/').unwrap_or((text, ""));
    let (before, after) = first.split_once(':').unwrap_or((first, ""));
    let scheme = before.trim().to_ascii_lowercase();
    let colon = before.len() < first.len();
    let known = SCHEMES.contains(&scheme.as_str());
    let spelt = scheme.len() > 1 && scheme.bytes().all(|b| b.is_ascii_alphanumeric());
    let like = match (colon, known) {
        (true, true) => true,
        // `name:/x` is a URL. A colon within a name may belong to the name of a folder.
        (true, false) => spelt && after.is_empty() && first.len() < text.len(),
        (false, true) => rest.starts_with('/'),
        (false, false) => false,
    };
    if !like {
        return Ok(());
    }
    if text.contains('@') {
        // The text is not repeated, for the reason that `locate` gives.
        return Err(CREDENTIALS.to_owned());
    }
    let rest = format!("{after}/{rest}");
    let rest = rest.trim_matches('/');
    let remedy = match scheme.as_str() {
        "s3" | "s3a" | "s3n" => format!("write s3://{rest}"),
        "file" => format!("write file:///{rest}, or the path without `file:`"),
        _ => "give an s3:// or file:// URL, or a path".to_owned(),
    };
    Err(format!(
        "`{text}` looks like a URL and would be a folder of this machine: {remedy} (a folder of that \
         name is `./{text}`)"
    ))
}

/// The URL that a text means. The text behind `s3://bucket/` is a key and stays as it is typed: encoded, it would
/// name another prefix.
fn locate(text: &str, base: &Path) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("is empty: give an s3:// URL or a path".to_owned());
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        refuse_url_like(text)?;
        return local(text, base).map(String::from);
    };
    // A URL with a user in it is not repeated, for it may hold a secret. Secrets of AWS may hold `/`, so the `@` may
    // come behind a `/`.
    let host = rest.split('/').next().unwrap_or_default();
    if host.contains('@') || (host.contains(':') && rest.contains('@')) {
        return Err(CREDENTIALS.to_owned());
    }
    if host.contains(':') {
        return Err(
            "has `:` in its host: write s3://bucket/prefix/, and name the server in \
                    AWS_ENDPOINT_URL"
                .to_owned(),
        );
    }
    match scheme {
        "s3" => {}
        "file" if rest.starts_with('/') => {}
        "file" => {
            return Err(format!(
                "`{text}` names a host: write file:///absolute/path, or a path without file://"
            ));
        }
        "s3a" | "s3n" | "S3" => return Err(format!("`{text}`: write s3://{rest}")),
        other => {
            return Err(format!(
                "`{other}://` is not supported: give an s3:// or file:// URL or a path (other \
                 servers that speak S3 are reached as s3:// with AWS_ENDPOINT_URL)"
            ));
        }
    }
    let url = Url::parse(text).map_err(|error| format!("`{text}` is no URL: {error}"))?;
    if scheme == "s3" && url.host_str().is_none_or(str::is_empty) {
        return Err(format!(
            "`{text}` names no bucket: write s3://bucket/prefix/"
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!(
            "`{text}` has a `?` or `#`, which prefixes here may not hold: name the part before it"
        ));
    }
    if url.path().contains("//") {
        return Err(format!(
            "`{text}` has an empty name between two `/`, which cannot be listed: take one out"
        ));
    }
    if scheme == "file" {
        // A folder needs one spelling, or overlaps would not be found.
        let path = url
            .to_file_path()
            .map_err(|()| format!("`{text}` is no path of this machine"))?;
        let folder = if text.ends_with('/') { "/" } else { "" };
        return local(&format!("{}{folder}", path.display()), base).map(String::from);
    }
    let key = rest.split_once('/').map_or("", |(_, key)| key);
    if key.split('/').any(|name| name == "." || name == "..") {
        return Err(format!(
            "`{text}` has a `.` or `..` between two `/`: write the prefix without"
        ));
    }
    if text.trim() != text || key.contains(char::is_control) {
        return Err(format!(
            "{text:?} ends in white space or holds a control character: take it out"
        ));
    }
    Ok(text.to_owned())
}

/// The URL of a local path.
fn local(text: &str, base: &Path) -> Result<Url, String> {
    if text.starts_with('~') {
        return Err(format!(
            "`{text}`: `~` is not expanded, write the whole path"
        ));
    }
    let path = normal(&base.join(text));
    let url = if text.ends_with('/') {
        Url::from_directory_path(&path)
    } else {
        Url::from_file_path(&path)
    };
    url.map_err(|()| format!("`{text}` has no absolute path below {}", base.display()))
}

/// The path without `.` and `..`: a folder needs one spelling, or overlaps would not be found.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let base = Path::new("/etc/rawmart");
        for (text, url) in [
            ("lake", "file:///etc/rawmart/lake/"),
            ("./lake/", "file:///etc/rawmart/lake/"),
            ("../lake", "file:///etc/lake/"),
            ("/data/a b", "file:///data/a%20b/"),
            ("file:///data", "file:///data/"),
            ("/", "file:///"),
            ("s3://acme", "s3://acme/"),
            ("s3://acme/a/b", "s3://acme/a/b/"),
            ("s3://Acme_1/단지 1/", "s3://Acme_1/단지 1/"),
            ("s3://b/a%20b/c+d", "s3://b/a%20b/c+d/"),
            (
                "file:///data/단지 1",
                "file:///data/%EB%8B%A8%EC%A7%80%201/",
            ),
            ("file:///data/%61%20b/", "file:///data/a%20b/"),
            ("s3/x", "file:///etc/rawmart/s3/x/"),
            ("./s3:/x", "file:///etc/rawmart/s3:/x/"),
            ("day:2024/x", "file:///etc/rawmart/day:2024/x/"),
        ] {
            assert_eq!(folder_url(text, base).as_deref(), Ok(url), "{text}");
        }
        for (text, why) in [
            ("", "is empty"),
            ("s3a://b/x", "write s3://b/x"),
            ("gs://b/x", "`gs://` is not supported"),
            ("s3:///x", "names no bucket"),
            ("s3://b/x?y", "has a `?` or `#`"),
            ("s3://b/x#y", "has a `?` or `#`"),
            ("s3://b/x/../y", "`.` or `..`"),
            ("s3://b/./", "`.` or `..`"),
            ("s3://b/x ", "white space"),
            ("s3://b/x\ty", "control character"),
            ("s3://b:9000/x", "AWS_ENDPOINT_URL"),
            ("s3://b/x//y", "empty name"),
            ("file://data/x", "file:///absolute/path"),
            ("~/x", "not expanded"),
            ("s3:/b/x", "write s3://b/x"),
            ("s3:b/x/", "write s3://b/x"),
            ("s3:", "write s3://"),
            ("S3://b/x", "write s3://b/x"),
            ("S3:/b/x", "write s3://b/x"),
            ("s3//b/x", "write s3://b/x"),
            ("s3a:/b", "write s3://b"),
            ("gs:/b/x", "give an s3:// or file:// URL"),
            ("gs//b/x", "give an s3:// or file:// URL"),
            ("minio:/b/x", "give an s3:// or file:// URL"),
            ("file:/data/x", "write file:///data/x"),
        ] {
            let error = folder_url(text, base).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        for text in [
            "s3://AKIA:hunter2@b/x",
            "s3://AKIA:a/hunter2@b/x",
            "https://hunter2@b",
            "s3:/AKIA:hunter2@b/x",
        ] {
            let error = folder_url(text, base).unwrap_err();
            assert!(error.contains("credentials never"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(folder_url("s3://b/a@b", base).is_ok());
        assert!(
            file_url("s3://b/x/", base)
                .unwrap_err()
                .contains("name one file")
        );
        assert!(
            local_path("s3://b/x/", base)
                .unwrap_err()
                .contains("no local folder")
        );
        assert_eq!(
            local_path("sql/marts", base),
            Ok("/etc/rawmart/sql/marts".into())
        );
    }

    #[test]
    fn one_folder_within_another() {
        assert!(overlap("s3://b/a/", "s3://b/a/"));
        assert!(overlap("s3://b/", "s3://b/a/"));
        assert!(!overlap("s3://b/a/", "s3://b/ab/"));
        assert!(!overlap("s3://b/", "s3://bb/"));
        let base = Path::new("/etc");
        for (a, b) in [
            ("s3://b/단지 1", "s3://b/단지 1/x y"),
            ("/data/단지 1/x", "file:///data/%EB%8B%A8%EC%A7%80%201"),
            ("file:///data/%61 b", "/data/a b"),
        ] {
            let url = |text| folder_url(text, base).unwrap();
            assert!(overlap(&url(a), &url(b)), "{a} {b}");
        }
        assert!(!overlap("s3://b/단지 1/", "s3://b/단지 12/"));
    }
}
