//! A newcomer's way: `init`, `check`, `status`, against a fake tenant.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use chrono::Utc;
use serde_json::Value;
use simulate::{Broken, Options, Searching};

use crate::binary::{Harrier, Ran, command, finish, until};
use crate::service::{Service, Tenant};

fn ran(harrier: &Harrier, arguments: &[&str]) -> Ran {
    let mut command = command();
    command.args(arguments).current_dir(harrier.path(""));
    finish(&mut command)
}

fn options() -> Options {
    Options { users: 2, days: 1, ..Options::new(Utc::now()) }
}

/// `init` with all that it would ask for, and a client secret from stdin.
fn init(harrier: &Harrier, options: &Options, tenant: &Tenant, more: &[&str]) -> Ran {
    let endpoints = format!("http://{}", tenant.fake.address());
    let secret = harrier.file("stdin", format!("{}\n", options.client_secret));
    let mut command = command();
    command
        .args(["init", "--name", "contoso", "--tenant-id", &options.tenant_id, "--client-id", &options.client_id])
        .args(["--domains", &options.domain, "--credential", "secret", "--secret-stdin", "--endpoints", &endpoints])
        .args(["--config", "setup/harrier.toml", "--data-dir", "data", "--sink", "file:findings.ndjson"])
        .args(more)
        .current_dir(harrier.path(""))
        .stdin(std::fs::File::open(secret).unwrap());
    finish(&mut command)
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_newcomer_ends_in_a_green_check_and_a_status() {
    let options = options();
    let tenant = Tenant::start(options.clone());
    let harrier = Harrier::new();
    let ended = init(&harrier, &options, &tenant, &[]);
    assert_eq!(ended.code, Some(0), "{ended}");
    assert!(ended.stdout.contains("ok    permissions: ActivityFeed.Read") && !ended.stdout.contains("FAIL"), "{ended}");
    assert!(!ended.to_string().contains(&options.client_secret), "{ended}");
    let config = harrier.path("setup/harrier.toml");
    let secret = harrier.path("setup/contoso-secret");
    assert_eq!((mode(&config), mode(&secret)), (0o600, 0o600));
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), options.client_secret);
    // Nothing is overwritten unasked.
    let before = std::fs::read_to_string(&config).unwrap();
    let again = init(&harrier, &options, &tenant, &["--domains", "other.example"]);
    assert!(again.code == Some(1) && again.stderr.contains("--force"), "{again}");
    assert_eq!(std::fs::read_to_string(&config).unwrap(), before);
    assert_eq!(init(&harrier, &options, &tenant, &["--domains", "other.example", "--force"]).code, Some(0));
    assert!(std::fs::read_to_string(&config).unwrap().contains("other.example"));

    let file = config.to_str().unwrap();
    let unknown = ran(&harrier, &["status", "--config", file]);
    assert!(unknown.code == Some(1) && unknown.stdout.contains("never collected"), "{unknown}");
    assert!(!harrier.path("data").exists(), "asking makes nothing");
    let quiet = format!("{before}\n[http]\nlisten = \"127.0.0.1:0\"\n[poll]\ninterval = \"1s\"\n");
    std::fs::write(&config, quiet).unwrap();
    let service = Service::start(&config);
    let complete =
        until(std::time::Duration::from_secs(60), || ran(&harrier, &["status", "--config", file]).code == Some(0));
    let status = ran(&harrier, &["status", "--json", "--config", file]);
    assert!(complete, "{status}");
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    let feeds = status["tenants"][0]["feeds"].as_array().unwrap();
    assert_eq!(feeds.len(), 4);
    assert_eq!(service.terminate(), Some(0));
}

#[test]
fn what_is_broken_fails_the_check_and_says_what_mends_it() {
    let options = Options { broken: vec![Broken::NoConsent], ..options() };
    let tenant = Tenant::start(options.clone());
    let harrier = Harrier::new();
    let ended = init(&harrier, &options, &tenant, &[]);
    assert_eq!(ended.code, Some(78), "{ended}");
    assert!(ended.stdout.contains("az ad app permission admin-consent"), "{ended}");
    let file = harrier.path("setup/harrier.toml");
    let file = file.to_str().unwrap();
    assert_eq!(ran(&harrier, &["check", "--config", file]).code, Some(78));
    assert_eq!(ran(&harrier, &["check", "--offline", "--config", file]).code, Some(0));
}

#[test]
fn without_a_terminal_init_says_what_it_needs_and_writes_nothing() {
    let harrier = Harrier::new();
    let ended = ran(&harrier, &["init", "--config", "harrier.toml"]);
    assert!(ended.code == Some(1) && ended.stderr.contains("--name"), "{ended}");
    let ended = ran(&harrier, &["init", "--name", "a", "--tenant-id", "11111111-1111-1111-1111-111111111111"]);
    assert!(ended.code == Some(1) && ended.stderr.contains("--client-id"), "{ended}");
    // By then the commands that make the application have been shown.
    assert!(ended.stdout.contains("az ad app create") && ended.stdout.contains("admin-consent"), "{ended}");
    assert!(!harrier.path("harrier.toml").exists());
}

/// What came by the feed and comes again by the search is one row; what is older than the feed reaches is there as well.
#[test]
fn a_backfill_adds_what_the_feed_does_not_have_and_doubles_nothing() {
    let searching = Searching { looks: 1, ..Searching::default() };
    let options = Options { users: 3, days: 12, searching, ..Options::new(Utc::now()) };
    let tenant = Tenant::start(options.clone());
    let truth = tenant.fake.world().records.len() as u64;
    let harrier = Harrier::new();
    assert_eq!(init(&harrier, &options, &tenant, &[]).code, Some(0));
    let config = harrier.path("setup/harrier.toml");
    let file = config.to_str().unwrap();
    let search = |since: &str, until: &str| {
        let ended = ran(&harrier, &["backfill", "--since", since, "--until", until, "--config", file]);
        assert_eq!(ended.code, Some(0), "{ended}");
        let number = |name: &str| -> u64 {
            let line = ended.stdout.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{ended}"));
            line.split_whitespace().next_back().unwrap().replace(',', "").parse().unwrap()
        };
        (number("records found"), number("known before"))
    };
    // Three days by the search alone, then all of it twice: no record is found that is not in the world, none doubled.
    let (found, _) = search("5d", "2d");
    assert!(found > 0 && harrier.number("SELECT count(*) FROM events") == found);
    let quiet = format!(
        "{}\n[http]\nlisten = \"127.0.0.1:0\"\n[poll]\ninterval = \"1s\"\n[archive]\nflush_interval = \"1s\"\n",
        std::fs::read_to_string(&config).unwrap()
    );
    std::fs::write(&config, quiet).unwrap();
    let service = Service::start(&config);
    let by_feed =
        until(std::time::Duration::from_secs(90), || ran(&harrier, &["status", "--config", file]).code == Some(0));
    assert!(by_feed);
    assert_eq!(service.terminate(), Some(0));
    let (again, known) = search("30d", "0s");
    assert!(again > found && known > 0);
    assert_eq!(harrier.number("SELECT count(*) FROM events"), truth);
    assert_eq!(harrier.number("SELECT count(DISTINCT id) FROM events"), truth);
    assert!(harrier.number("SELECT count(*) FROM events WHERE source = 'audit_search'") > 0);
    assert_eq!(harrier.number("SELECT count(*) FROM coverage WHERE feed = 'audit_search' AND state <> 'complete'"), 0);
}
