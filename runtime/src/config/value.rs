//! The forms of single values: durations, ids, addresses, names, references to secrets.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use url::{Host, Url};

use super::secret::SecretFile;

/// Longest duration: ten years. More is a slip, and far enough from overflow to add it to any time.
const DURATION_DAYS_MAX: u64 = 3_650;

/// Why a value is not what its key needs. None of these repeats the value: it might be a secret in the wrong place.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidValue {
    #[error(transparent)]
    Tenant(#[from] schemas::tenant::InvalidTenant),
    #[error("a sink's name has 1 to 63 characters a-z, 0-9 and '-', and begins with a letter or a digit")]
    SinkName,
    #[error("an id has the form 11111111-2222-3333-4444-555555555555")]
    Guid,
    #[error(transparent)]
    Duration(#[from] InvalidDuration),
    #[error("must be from {least} to {most}")]
    OutOfRange { least: &'static str, most: &'static str },
    #[error("an address to listen on has the form 127.0.0.1:9464")]
    Listen,
    #[error("a domain has the form contoso.com")]
    Domain,
    #[error("a broker is named host:port")]
    Broker,
    #[error("a prefix has 1 to 100 characters a-z, A-Z, 0-9, '.', '_' and '-'")]
    Prefix,
    #[error("must not be empty")]
    Empty,
    #[error("is not an address of the form https://host")]
    Url,
    #[error("must begin with https://: credentials would pass in the clear (http:// is for loopback only)")]
    UrlInTheClear,
    #[error("begins with http://: what is archived would pass in the clear; set allow_http = true to have that")]
    StoreInTheClear,
    #[error(
        "an archive's address has the form s3://BUCKET/PREFIX, az://CONTAINER/PREFIX or gs://BUCKET/PREFIX, without credentials"
    )]
    StoreUrl,
    #[error("must not have a user, a query or a fragment")]
    UrlParts,
    #[error("names a file, and this is an address: write it to a file and name that here")]
    UrlForFile,
    #[error("a credential is named credential:NAME, with a NAME of letters, digits, '.', '_' and '-'")]
    Credential,
    #[error("a user's name has 1 to 63 characters a-z, 0-9, '.', '_' and '-'")]
    UserName,
    #[error("a day has the form 2026-11-23")]
    Day,
    #[error("variables are not expanded: write the value itself, or for a secret the name of its file")]
    Variable,
}

/// A text is not a duration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a duration is a whole number with a unit, such as \"30s\", \"5m\", \"24h\" or \"7d\" (at most 3650d)")]
pub struct InvalidDuration;

/// A duration: `30s`, `5m`, `24h`, `7d`.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidDuration> {
    let split = text.len().checked_sub(1).filter(|at| text.is_char_boundary(*at)).ok_or(InvalidDuration)?;
    let (number, unit) = text.split_at(split);
    let unit_seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(InvalidDuration),
    };
    // `parse` would take a sign.
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(InvalidDuration);
    }
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_seconds));
    let seconds_max = DURATION_DAYS_MAX * 24 * 60 * 60;
    seconds.filter(|seconds| *seconds <= seconds_max).map(Duration::from_secs).ok_or(InvalidDuration)
}

/// An id of Microsoft's: a GUID in lower case.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Guid(String);

impl Guid {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Guid {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Guid, InvalidValue> {
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
        let parts: Vec<&str> = text.split('-').collect();
        let valid = parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]) && parts.iter().all(|part| digits(part));
        if valid { Ok(Guid(text.to_ascii_lowercase())) } else { Err(InvalidValue::Guid) }
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The address of an API: https, or http on loopback, where a fake tenant or a proxy may listen. Without the slash at
/// its end that a parsed address always has.
pub(super) fn endpoint(text: &str) -> Result<String, InvalidValue> {
    let url = Url::parse(text).map_err(|_| InvalidValue::Url)?;
    if url.host().is_none() {
        return Err(InvalidValue::Url);
    }
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(&url) => {}
        "http" => return Err(InvalidValue::UrlInTheClear),
        _ => return Err(InvalidValue::Url),
    }
    let bare = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    if bare && url.fragment().is_none() {
        Ok(url.as_str().trim_end_matches('/').to_owned())
    } else {
        Err(InvalidValue::UrlParts)
    }
}

pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// A mail domain in lower case.
pub(super) fn domain(text: &str) -> Result<String, InvalidValue> {
    let name = text.trim_end_matches('.').to_lowercase();
    let label = |label: &str| {
        !label.is_empty() && label.len() <= 63 && label.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_')
    };
    let valid = name.contains('.') && name.len() <= 253 && name.split('.').all(label);
    if valid { Ok(name) } else { Err(InvalidValue::Domain) }
}

/// `host:port`.
pub(super) fn broker(text: &str) -> Result<String, InvalidValue> {
    let valid = text.rsplit_once(':').is_some_and(|(host, port)| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
        !host.is_empty() && host.chars().all(allowed) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if valid { Ok(text.to_owned()) } else { Err(InvalidValue::Broker) }
}

/// What names of topics may begin with.
pub(super) fn prefix(text: &str) -> Result<String, InvalidValue> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let valid = (1..=100).contains(&text.len()) && text.chars().all(allowed) && !text.starts_with('.');
    if valid { Ok(text.to_owned()) } else { Err(InvalidValue::Prefix) }
}

/// A sink's name has the alphabet of tenants' names, for the same reasons.
pub(super) fn sink_name(text: &str) -> Result<String, InvalidValue> {
    text.parse::<schemas::tenant::Tenant>().map(String::from).map_err(|_| InvalidValue::SinkName)
}

/// A reference to a secret: a path, or `credential:NAME`.
pub(super) fn secret_file(text: &str, folder: &Path) -> Result<SecretFile, InvalidValue> {
    if text.is_empty() {
        return Err(InvalidValue::Empty);
    }
    if text.contains("://") {
        return Err(InvalidValue::UrlForFile);
    }
    let Some(name) = text.strip_prefix("credential:") else { return Ok(SecretFile::Path(folder.join(text))) };
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    // Names that could leave the folder are refused.
    if name.is_empty() || name.starts_with('.') || !name.chars().all(allowed) {
        return Err(InvalidValue::Credential);
    }
    Ok(SecretFile::Credential(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, seconds) in [("0s", 0), ("30s", 30), ("5m", 300), ("24h", 86_400), ("7d", 604_800)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "s", "5", "-5s", "+5s", "1.5h", "5 m", "5min", "5w", "9999999999999999999d", "3651d", "5é"] {
            let expected = if text == "s" { parse_duration(text) } else { Err(InvalidDuration) };
            assert_eq!(parse_duration(text), expected, "{text}");
        }
        assert_eq!(parse_duration("s"), Err(InvalidDuration));
    }

    #[test]
    fn endpoints_carry_credentials_so_they_are_encrypted() {
        for text in
            ["https://proxy.contoso.com:8443/m365", "http://127.0.0.1:8080", "http://[::1]:1", "http://localhost"]
        {
            assert_eq!(endpoint(&format!("{text}/")).as_deref(), Ok(text));
        }
        for (text, why) in [
            ("http://manage.office.com", InvalidValue::UrlInTheClear),
            ("http://127.0.0.1.contoso.com", InvalidValue::UrlInTheClear),
            ("ftp://127.0.0.1", InvalidValue::Url),
            ("manage.office.com", InvalidValue::Url),
            ("https://a:b@manage.office.com", InvalidValue::UrlParts),
            ("https://manage.office.com/?a=b", InvalidValue::UrlParts),
        ] {
            assert_eq!(endpoint(text), Err(why), "{text}");
        }
    }

    #[test]
    fn a_credential_cannot_leave_its_folder() {
        let folder = Path::new("/etc/harrier");
        assert_eq!(secret_file("a/b", folder), Ok(SecretFile::Path("/etc/harrier/a/b".into())));
        assert_eq!(secret_file("/run/x", folder), Ok(SecretFile::Path("/run/x".into())));
        assert_eq!(secret_file("credential:soc-1.txt", folder), Ok(SecretFile::Credential("soc-1.txt".into())));
        for text in ["credential:", "credential:..", "credential:../x", "credential:a/b", "credential:.x"] {
            assert_eq!(secret_file(text, folder), Err(InvalidValue::Credential), "{text}");
        }
    }

    #[test]
    fn ids_and_domains() {
        let id: Guid = "ABCDEF00-1111-2222-3333-444444444444".parse().unwrap();
        assert_eq!(id.as_str(), "abcdef00-1111-2222-3333-444444444444");
        for text in ["", "abcdef00111122223333444444444444", "gbcdef00-1111-2222-3333-444444444444", "common"] {
            assert_eq!(text.parse::<Guid>(), Err(InvalidValue::Guid), "{text}");
        }
        assert_eq!(domain("Contoso.COM."), Ok("contoso.com".into()));
        for text in ["contoso", "@contoso.com", "a..b", "con toso.com", "*.contoso.com"] {
            assert_eq!(domain(text), Err(InvalidValue::Domain), "{text}");
        }
    }
}
