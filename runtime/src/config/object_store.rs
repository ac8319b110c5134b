//! `[archive] url`: the archive in an object store, and who harrier is there.
//!
//! Nothing here is a secret: keys are named by their files. Where none is named, harrier is whoever the machine, or the
//! token that the platform renews in a file, says it is.

use std::fmt;
use std::path::PathBuf;

use url::Url;

use super::build::Builder;
use super::problem::Problem;
use super::secret::SecretFile;
use super::value::{InvalidValue, is_loopback};
use super::written::{Placed, WrittenArchive};

/// An object store, and the place in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectStoreConfig {
    pub kind: ObjectStoreKind,
    /// The bucket; Azure calls it a container.
    pub bucket: String,
    /// Everything lies below it; empty for the whole bucket.
    pub prefix: String,
    /// Where it is reached; the provider's own address without one.
    pub endpoint: Option<String>,
    /// Whether records may pass in the clear.
    pub allow_http: bool,
    /// The authority that signed the store's certificate; the system's own where it is not given.
    pub tls_ca_file: Option<PathBuf>,
}

/// Whose interface it speaks, with what only that one needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectStoreKind {
    S3 { region: Option<String>, access: S3Access },
    Azure { account: String, access: AzureAccess },
    Google { access: GoogleAccess },
}

/// Who harrier is at S3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum S3Access {
    Key {
        id: String,
        secret: SecretFile,
    },
    /// A role, taken with a token that somebody else renews in a file, such as Kubernetes for a service account.
    Role {
        arn: String,
        token_file: PathBuf,
    },
    /// Whoever the machine is.
    Machine,
}

/// Who harrier is at Azure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AzureAccess {
    Key(SecretFile),
    /// An application, by a token that somebody else renews in a file.
    Federated {
        client_id: String,
        tenant_id: String,
        token_file: PathBuf,
    },
    /// Whoever the machine is, or that one of its identities.
    Machine {
        client_id: Option<String>,
    },
}

/// Who harrier is at Google.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GoogleAccess {
    /// The key of a service account, as JSON.
    Key(SecretFile),
    /// Whoever the machine is.
    Machine,
}

impl ObjectStoreConfig {
    /// The secret that it takes, if it takes one.
    pub fn secret(&self) -> Option<&SecretFile> {
        match &self.kind {
            ObjectStoreKind::S3 { access: S3Access::Key { secret, .. }, .. } => Some(secret),
            ObjectStoreKind::Azure { access: AzureAccess::Key(secret), .. } => Some(secret),
            ObjectStoreKind::Google { access: GoogleAccess::Key(secret) } => Some(secret),
            _ => None,
        }
    }
}

impl fmt::Display for ObjectStoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.kind {
            ObjectStoreKind::S3 { .. } => Scheme::S3,
            ObjectStoreKind::Azure { .. } => Scheme::Azure,
            ObjectStoreKind::Google { .. } => Scheme::Google,
        };
        write!(f, "{}{}", scheme.text(), self.bucket)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

/// What an address begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    S3,
    Azure,
    Google,
}

impl Scheme {
    const ALL: [Scheme; 3] = [Scheme::S3, Scheme::Azure, Scheme::Google];

    const fn text(self) -> &'static str {
        match self {
            Scheme::S3 => "s3://",
            Scheme::Azure => "az://",
            Scheme::Google => "gs://",
        }
    }

    /// The keys that are its own.
    const fn keys(self) -> &'static [&'static str] {
        match self {
            Scheme::S3 => &["region", "access_key_id", "secret_access_key_file", "role_arn", "web_identity_token_file"],
            Scheme::Azure => &["account", "account_key_file", "client_id", "tenant_id", "federated_token_file"],
            Scheme::Google => &["service_account_file"],
        }
    }
}

/// The keys that every object store has.
const SHARED_KEYS: [&str; 3] = ["endpoint", "allow_http", "tls_ca_file"];

impl Builder<'_> {
    /// The object store of `[archive]`, if it names one.
    pub(super) fn object_store(&mut self, written: &WrittenArchive) -> Option<ObjectStoreConfig> {
        let present = written.present.clone();
        let of_store = |key: &&str| SHARED_KEYS.contains(key) || Scheme::ALL.iter().any(|of| of.keys().contains(key));
        let Some(url) = written.url.clone() else {
            if !present.has("url") {
                for (key, offset) in present.iter().filter(|(key, _)| of_store(key)) {
                    self.problem(*offset, Problem::WithoutUrl { key });
                }
            }
            return None;
        };
        let offset = url.offset;
        let (scheme, bucket, prefix) = self.parsed("url", Some(url), location)?;
        let foreign = |key: &&str| of_store(key) && !SHARED_KEYS.contains(key) && !scheme.keys().contains(key);
        for (key, offset) in present.iter().filter(|(key, _)| foreign(key)) {
            self.problem(*offset, Problem::NotForStore { key, scheme: scheme.text() });
        }
        let allow_http = written.allow_http.as_ref().is_some_and(|allow| allow.value);
        let endpoint = self.store_endpoint(written.endpoint.clone(), allow_http);
        let tls_ca_file = self.path("tls_ca_file", written.tls_ca_file.clone());
        let kind = match scheme {
            Scheme::S3 => self.s3(written, offset),
            Scheme::Azure => self.azure(written, offset),
            Scheme::Google => {
                let key = self.secret("service_account_file", written.service_account_file.clone());
                Some(ObjectStoreKind::Google { access: key.map_or(GoogleAccess::Machine, GoogleAccess::Key) })
            }
        };
        Some(ObjectStoreConfig { kind: kind?, bucket, prefix, endpoint, allow_http, tls_ca_file })
    }

    fn store_endpoint(&mut self, written: Option<Placed<String>>, allow_http: bool) -> Option<String> {
        let offset = written.as_ref().map_or(0, |written| written.offset);
        let endpoint = self.parsed("endpoint", written, |text| endpoint(text, allow_http))?;
        let is_far = Url::parse(&endpoint).is_ok_and(|url| url.scheme() == "http" && !is_loopback(&url));
        if is_far {
            self.problem(offset, Problem::ArchiveInTheClear);
        }
        Some(endpoint)
    }

    fn s3(&mut self, written: &WrittenArchive, offset: usize) -> Option<ObjectStoreKind> {
        let region = self.parsed("region", written.region.clone(), not_empty);
        let key = self.all_or_none(written, offset, ["access_key_id", "secret_access_key_file"]);
        let role = self.all_or_none(written, offset, ["role_arn", "web_identity_token_file"]);
        if key && let Some((_, offset)) = written.present.iter().find(|(key, _)| role && *key == "role_arn") {
            self.problem(*offset, Problem::SecondCredential { key: "role_arn", first: "access_key_id" });
        }
        let access = if key {
            let id = self.parsed("access_key_id", written.access_key_id.clone(), not_empty);
            let secret = self.secret("secret_access_key_file", written.secret_access_key_file.clone());
            S3Access::Key { id: id?, secret: secret? }
        } else if role {
            let arn = self.parsed("role_arn", written.role_arn.clone(), not_empty);
            let token_file = self.path("web_identity_token_file", written.web_identity_token_file.clone());
            S3Access::Role { arn: arn?, token_file: token_file? }
        } else {
            S3Access::Machine
        };
        Some(ObjectStoreKind::S3 { region, access })
    }

    fn azure(&mut self, written: &WrittenArchive, offset: usize) -> Option<ObjectStoreKind> {
        self.require("[archive] with an address of Azure", offset, &written.present, &["account"]);
        let account = self.parsed("account", written.account.clone(), not_empty);
        let client_id = self.parsed("client_id", written.client_id.clone(), not_empty);
        let tenant_id = self.parsed("tenant_id", written.tenant_id.clone(), not_empty);
        let token_file = self.path("federated_token_file", written.federated_token_file.clone());
        let key = self.secret("account_key_file", written.account_key_file.clone());
        let is_federated = self.all_or_none(written, offset, ["tenant_id", "federated_token_file"]);
        if is_federated {
            self.require("[archive] with `federated_token_file`", offset, &written.present, &["client_id"]);
        }
        if written.present.has("account_key_file") {
            for (other, offset) in
                written.present.iter().filter(|(key, _)| matches!(*key, "federated_token_file" | "client_id"))
            {
                self.problem(*offset, Problem::SecondCredential { key: other, first: "account_key_file" });
            }
        }
        let access = match (key, token_file) {
            (Some(key), _) => AzureAccess::Key(key),
            (None, Some(token_file)) => {
                AzureAccess::Federated { client_id: client_id?, tenant_id: tenant_id?, token_file }
            }
            (None, None) => AzureAccess::Machine { client_id },
        };
        Some(ObjectStoreKind::Azure { account: account?, access })
    }

    /// Whether these are there: both, or neither.
    fn all_or_none(&mut self, written: &WrittenArchive, offset: usize, keys: [&'static str; 2]) -> bool {
        let is_there = keys.iter().any(|key| written.present.has(key));
        if is_there {
            self.require("[archive]", offset, &written.present, &keys);
        }
        is_there
    }
}

fn not_empty(text: &str) -> Result<String, InvalidValue> {
    if text.trim().is_empty() { Err(InvalidValue::Empty) } else { Ok(text.to_owned()) }
}

/// Bucket and prefix.
fn location(text: &str) -> Result<(Scheme, String, String), InvalidValue> {
    let scheme = Scheme::ALL.into_iter().find(|scheme| text.starts_with(scheme.text()));
    let scheme = scheme.ok_or(InvalidValue::StoreUrl)?;
    let place = text[scheme.text().len()..].trim_end_matches('/');
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let part =
        |part: &str| !part.is_empty() && part != "." && part != ".." && part.chars().all(|c| named(c) || c == '=');
    let is_valid = (3..=255).contains(&bucket.len())
        && bucket.chars().all(named)
        && prefix.len() <= 512
        && (prefix.is_empty() || prefix.split('/').all(part));
    if is_valid { Ok((scheme, bucket.to_owned(), prefix.to_owned())) } else { Err(InvalidValue::StoreUrl) }
}

fn endpoint(text: &str, allow_http: bool) -> Result<String, InvalidValue> {
    let url = Url::parse(text).map_err(|_| InvalidValue::Url)?;
    if url.host().is_none() {
        return Err(InvalidValue::Url);
    }
    match url.scheme() {
        "https" => {}
        "http" if allow_http => {}
        "http" => return Err(InvalidValue::StoreInTheClear),
        _ => return Err(InvalidValue::Url),
    }
    let is_bare = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    if is_bare && url.fragment().is_none() {
        Ok(url.as_str().trim_end_matches('/').to_owned())
    } else {
        Err(InvalidValue::UrlParts)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::*;

    fn read(text: &str) -> Result<Option<ObjectStoreConfig>, String> {
        let config = Config::parse(Path::new("/etc/harrier.toml"), &format!("[archive]\n{text}"));
        config.map(|config| config.archive.store).map_err(|errors| errors.to_string())
    }

    fn store(text: &str) -> ObjectStoreConfig {
        read(text).unwrap().unwrap()
    }

    #[test]
    fn each_store_takes_a_key_by_its_file_or_is_who_the_machine_is() {
        assert_eq!(read("keep = \"90d\"").unwrap(), None);
        let s3 = store("url = \"s3://logs/case=1/a/\"\nregion = \"eu-north-1\"");
        assert_eq!(s3.to_string(), "s3://logs/case=1/a");
        assert_eq!(s3.kind, ObjectStoreKind::S3 { region: Some("eu-north-1".into()), access: S3Access::Machine });
        let s3 = store("url = \"s3://logs\"\naccess_key_id = \"id\"\nsecret_access_key_file = \"credential:s3\"");
        assert_eq!(s3.secret(), Some(&SecretFile::Credential("s3".into())));
        let s3 = store("url = \"s3://logs\"\nrole_arn = \"arn\"\nweb_identity_token_file = \"token\"");
        let role = S3Access::Role { arn: "arn".into(), token_file: "/etc/token".into() };
        assert_eq!(s3.kind, ObjectStoreKind::S3 { region: None, access: role });
        let azure = store("url = \"az://logs\"\naccount = \"contoso\"\naccount_key_file = \"key\"");
        assert_eq!(azure.secret(), Some(&SecretFile::Path("/etc/key".into())));
        let machine = store("url = \"az://logs\"\naccount = \"contoso\"\nclient_id = \"c\"");
        let access = AzureAccess::Machine { client_id: Some("c".into()) };
        assert_eq!(machine.kind, ObjectStoreKind::Azure { account: "contoso".into(), access });
        let google = store("url = \"gs://logs\"\nservice_account_file = \"key.json\"");
        assert_eq!(google.secret(), Some(&SecretFile::Path("/etc/key.json".into())));
        assert_eq!(store("url = \"gs://logs\"").kind, ObjectStoreKind::Google { access: GoogleAccess::Machine });
    }

    #[test]
    fn what_does_not_fit_together_is_said_with_its_place() {
        for (text, expected) in [
            ("url = \"ftp://logs\"", ":2:7: `url`: an archive's address"),
            ("url = \"s3://lo gs\"", "`url`: an archive's address"),
            ("url = \"s3://logs/../x\"", "`url`: an archive's address"),
            ("url = \"s3://id:key@logs\"", "`url`: an archive's address"),
            ("endpoint = \"https://x\"", ":2:1: `endpoint` does nothing without `url`"),
            ("url = \"s3://logs\"\naccount = \"x\"", ":3:1: `account` does nothing where `url` begins with s3://"),
            ("url = \"s3://logs\"\naccess_key_id = \"x\"", "[archive] needs `secret_access_key_file`"),
            ("url = \"s3://logs\"\nsecret_access_key = \"x\"", "name that with `secret_access_key_file`"),
            ("url = \"az://logs\"", "needs `account`"),
            ("url = \"s3://logs\"\nendpoint = \"http://127.0.0.1:1\"", "allow_http = true"),
            ("url = \"s3://logs\"\nendpoint = \"https://a:b@x\"", "must not have a user"),
            (
                "url = \"s3://logs\"\naccess_key_id = \"x\"\nsecret_access_key_file = \"k\"\nrole_arn = \"r\"\nweb_identity_token_file = \"t\"",
                "`role_arn` is a second credential beside `access_key_id`",
            ),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.contains(expected), "{text}\n{said}");
        }
    }

    #[test]
    fn http_beyond_this_machine_is_allowed_when_it_is_said_and_warned_of() {
        let text = "[archive]\nurl = \"s3://logs\"\nendpoint = \"http://store:9000\"\nallow_http = true";
        let config = Config::parse(Path::new("harrier.toml"), text).unwrap();
        assert_eq!(config.archive.store.unwrap().endpoint.as_deref(), Some("http://store:9000"));
        assert!(config.warnings[0].to_string().contains("pass in the clear"), "{}", config.warnings[0]);
        let near = text.replace("store:9000", "127.0.0.1:9000");
        assert!(Config::parse(Path::new("harrier.toml"), &near).unwrap().warnings.is_empty());
    }
}
