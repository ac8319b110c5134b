use std::fs;

use super::secret::SECRET_BYTES_MAX;
use super::*;

fn folder_with(secret: &[u8]) -> (tempfile::TempDir, SecretFile) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("secret"), secret).unwrap();
    let file = SecretFile::Path(folder.path().join("secret"));
    (folder, file)
}

#[test]
fn a_secret_is_read_without_its_line_break_and_never_printed() {
    let (_folder, file) = folder_with(b" hunter2 \r\n");
    let secret = file.read().unwrap();
    assert_eq!(secret.expose(), " hunter2 ");
    assert_eq!(format!("{secret} {secret:?} {secret:#?}"), "[secret] [secret] [secret]");
}

#[test]
fn errors_name_the_file_and_never_what_is_in_it() {
    for (content, expected) in [
        (b"hunter2\xff".as_slice(), "is not UTF-8 text"),
        (b"\n\n", "is empty"),
        (&[b'x'; SECRET_BYTES_MAX as usize + 1], "is larger than 65536 bytes"),
    ] {
        let (folder, file) = folder_with(content);
        let error = file.read().unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(expected) && shown.contains(folder.path().to_str().unwrap()), "{shown}");
        assert!(!shown.contains("hunter2") && !shown.contains("104, 117"), "{shown}");
    }
    let missing = SecretFile::Path("/nowhere/secret".into()).read().unwrap_err().to_string();
    assert!(missing.starts_with("the secret in /nowhere/secret cannot be read: "), "{missing}");
}

#[test]
fn a_credential_without_systemd_says_so() {
    // Nothing sets the variable where tests run; setting it here would race with other tests.
    let error = SecretFile::Credential("soc".into()).read().unwrap_err().to_string();
    assert!(error.starts_with("credential:soc needs $CREDENTIALS_DIRECTORY"), "{error}");
}

#[test]
fn a_file_that_is_not_there_is_an_error_of_the_file() {
    let error = Config::load(Path::new("/nowhere/harrier.toml")).unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/harrier.toml: cannot be read: "), "{error}");
}

#[test]
fn a_folder_alone_is_a_configuration() {
    let from_folder = Config::for_data_dir(Path::new("data"));
    assert_eq!(Config::parse(Path::new("harrier.toml"), "data_dir = \"data\"").unwrap(), from_folder);
    assert!(from_folder.http.listen.ip().is_loopback());
}
