//! Who signs the archive's commits, and who can check it.
//!
//! The private key is a file of the data folder, outside the archive's own, made on the first start and readable by its
//! owner alone; a key that others may read is refused. Its public half lies beside it: whoever is to check the archive
//! takes a copy of that and keeps it elsewhere, for a key that lies beside what it proves can be replaced together
//! with it. Both are PEM, so that `openssl` can read them.

use std::io::Write;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use crate::delta::statement::sha256;
use crate::file::hex;

/// The private key, in the data folder.
pub const PRIVATE_KEY_FILE: &str = "archive-key.pem";

/// Its public half, beside it.
pub const PUBLIC_KEY_FILE: &str = "archive-key.pub.pem";

/// Larger than any key of this kind.
const KEY_FILE_BYTES_MAX: u64 = 4096;

/// What stands before the 32 bytes of a key in their standard encodings (PKCS 8 and SubjectPublicKeyInfo of RFC 8410).
const PRIVATE_PREFIX: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
const PUBLIC_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

const PRIVATE_LABEL: &str = "PRIVATE KEY";
const PUBLIC_LABEL: &str = "PUBLIC KEY";

/// Signs commits.
pub struct Signer {
    pair: Ed25519KeyPair,
    public_key: PublicKey,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("public_key", &self.public_key).finish_non_exhaustive()
    }
}

/// A key that signatures are checked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey(Vec<u8>);

/// What can be wrong with a key's file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    #[error("the key {path} cannot be read or written")]
    File { path: PathBuf, source: std::io::Error },
    #[error("others may read the key {path}: chmod 600 it, and make a new one if it may have been read")]
    Exposed { path: PathBuf },
    #[error("{path} is not an Ed25519 key in PEM")]
    NotAKey { path: PathBuf },
    #[error("this machine gives no random numbers to make a key of")]
    NoRandomness,
}

impl Signer {
    /// The signer of a data folder, whose key is made if it is not there yet.
    pub fn open(data_dir: &Path) -> Result<Signer, KeyError> {
        let path = data_dir.join(PRIVATE_KEY_FILE);
        if !path.try_exists().map_err(failed(&path))? {
            let mut seed = [0; 32];
            SystemRandom::new().fill(&mut seed).map_err(|_| KeyError::NoRandomness)?;
            let text = pem(PRIVATE_LABEL, &[&PRIVATE_PREFIX[..], &seed].concat());
            put_if_absent(&path, &text).map_err(failed(&path))?;
        }
        refuse_exposed(&path)?;
        let key = read(&path, PRIVATE_LABEL)?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&key);
        let pair = pair.map_err(|_| KeyError::NotAKey { path: path.clone() })?;
        let public_key = PublicKey(pair.public_key().as_ref().to_vec());
        let public_path = data_dir.join(PUBLIC_KEY_FILE);
        if !public_path.try_exists().map_err(failed(&public_path))? {
            put_if_absent(&public_path, &public_key.to_pem()).map_err(failed(&public_path))?;
        }
        Ok(Signer { pair, public_key })
    }

    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    pub(crate) fn sign(&self, text: &str) -> String {
        hex(self.pair.sign(text.as_bytes()).as_ref())
    }
}

impl PublicKey {
    /// Reads a public key.
    pub fn read(path: &Path) -> Result<PublicKey, KeyError> {
        let key = read(path, PUBLIC_LABEL)?;
        let bytes = key.strip_prefix(&PUBLIC_PREFIX).filter(|bytes| bytes.len() == 32);
        Ok(PublicKey(bytes.ok_or_else(|| KeyError::NotAKey { path: path.to_owned() })?.to_vec()))
    }

    pub fn to_pem(&self) -> String {
        pem(PUBLIC_LABEL, &[&PUBLIC_PREFIX[..], &self.0].concat())
    }

    /// As commits name it.
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }

    /// By which people know it again: `openssl pkey -pubin -in FILE -outform DER | sha256sum` says the same.
    pub fn fingerprint(&self) -> String {
        format!("sha256:{}", sha256(&[&PUBLIC_PREFIX[..], &self.0].concat()))
    }

    pub(crate) fn verifies(&self, text: &str, signature: &str) -> bool {
        let Some(signature) = unhex(signature) else { return false };
        UnparsedPublicKey::new(&ED25519, &self.0).verify(text.as_bytes(), &signature).is_ok()
    }
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> KeyError {
    move |source| KeyError::File { path: path.to_owned(), source }
}

#[cfg(unix)]
fn refuse_exposed(path: &Path) -> Result<(), KeyError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).map_err(failed(path))?.permissions().mode();
    if mode & 0o077 == 0 { Ok(()) } else { Err(KeyError::Exposed { path: path.to_owned() }) }
}

#[cfg(not(unix))]
fn refuse_exposed(_: &Path) -> Result<(), KeyError> {
    Ok(())
}

/// Writes a file for its owner alone: whole, or not at all. One that is there, or comes meanwhile, stays.
fn put_if_absent(path: &Path, text: &str) -> std::io::Result<()> {
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written =
        options.open(&part).and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    let linked = written.and_then(|()| match std::fs::hard_link(&part, path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    });
    std::fs::remove_file(&part)?;
    linked?;
    path.parent().map_or(Ok(()), |folder| std::fs::File::open(folder)?.sync_all())
}

fn read(path: &Path, label: &str) -> Result<Vec<u8>, KeyError> {
    let not_a_key = || KeyError::NotAKey { path: path.to_owned() };
    if std::fs::metadata(path).map_err(failed(path))?.len() > KEY_FILE_BYTES_MAX {
        return Err(not_a_key());
    }
    let bytes = std::fs::read(path).map_err(failed(path))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| not_a_key())?;
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let inner = text.trim().strip_prefix(&begin).and_then(|rest| rest.strip_suffix(&end)).ok_or_else(not_a_key)?;
    STANDARD.decode(inner.split_whitespace().collect::<String>()).map_err(|_| not_a_key())
}

fn pem(label: &str, key: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(key))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_for_its_owner_alone_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::open(folder.path()).unwrap();
        let path = folder.path().join(PRIVATE_KEY_FILE);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Signer::open(folder.path()).unwrap().public_key(), signer.public_key());
        let public = PublicKey::read(&folder.path().join(PUBLIC_KEY_FILE)).unwrap();
        let signature = signer.sign("text");
        assert!(public.verifies("text", &signature) && !public.verifies("test", &signature));
        assert!(!public.verifies("text", "zz") && !public.verifies("text", ""));
        let secret = std::fs::read_to_string(&path).unwrap();
        let secret = hex(&STANDARD.decode(secret.lines().nth(1).unwrap()).unwrap()[16..]);
        assert!(!format!("{signer:?}").contains(&secret[..16]));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left lying");
    }

    #[test]
    fn a_key_that_others_may_read_or_that_is_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        Signer::open(folder.path()).unwrap();
        let path = folder.path().join(PRIVATE_KEY_FILE);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Signer::open(folder.path()), Err(KeyError::Exposed { .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        for text in ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", &"x".repeat(5000)] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(Signer::open(folder.path()), Err(KeyError::NotAKey { .. })), "{text}");
        }
        assert!(matches!(PublicKey::read(&path), Err(KeyError::NotAKey { .. })));
    }
}
