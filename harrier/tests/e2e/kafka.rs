//! The roles as processes of their own, meeting on a real Apache Kafka: in the end the same rows and findings as those of
//! one process on the embedded log.

#[path = "../../../runtime/tests/broker/mod.rs"]
mod broker;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use chrono::Utc;
use simulate::{Options, Pace, Searching};

use crate::binary::{Counts, Harrier, command, finish, until};
use crate::sample::{Dice, joined, lines};
use crate::service::{Service, Tenant, configure};

const SETTLE_TIME_MAX: Duration = Duration::from_secs(180);

/// The log of one test: no other has its prefix.
fn log(addresses: &[String], test: &str) -> String {
    format!(
        "[log]\nkind = \"kafka\"\nbrokers = {addresses:?}\nprefix = \"{test}-{}\"\npartitions = 4\nreplication = 1\n\n\
         [log.options]\n\"session.timeout.ms\" = \"3000\"\n\"heartbeat.interval.ms\" = \"500\"\n",
        std::process::id()
    )
}

fn small_world(seed: u64) -> Options {
    let mut options = Options::new(Utc::now());
    (options.seed, options.users, options.days) = (seed, 4, 1);
    options
}

/// A role with a data folder of its own, which no other shares.
struct Role {
    harrier: Harrier,
    config: PathBuf,
    service: Option<Service>,
}

impl Role {
    fn start(name: &str, options: &Options, tenant: &Tenant, log: &str) -> Role {
        let harrier = Harrier::new();
        let config = configure(&harrier, options, tenant.fake.address(), "1s", log);
        let service = Some(Service::start_as(&config, name));
        Role { harrier, config, service }
    }

    fn service(&self) -> &Service {
        self.service.as_ref().unwrap()
    }
}

#[test]
fn roles_apart_come_to_the_same_as_one_process_though_a_detector_is_killed() {
    let Some(broker) = broker::broker() else { return };
    let mut options = small_world(7);
    options.pace = Pace::Fast { real: Duration::from_secs(15) };
    let tenant = Tenant::start(options.clone());
    tenant.subscribe(&options);
    let log = log(&broker.addresses, "roles");
    let began = Instant::now();
    let mut roles: Vec<Role> = ["ingest", "detect", "detect", "archive", "notify"]
        .map(|name| Role::start(name, &options, &tenant, &log))
        .into();
    println!("{:?}: all roles run", began.elapsed());
    let working = |role: &Role| role.service().metric("harrier_log_commits_total", &["consumer=\"match\""]) > 0.0;
    assert!(until(SETTLE_TIME_MAX, || roles[1..3].iter().all(working)), "both detectors have work");
    roles[2].service.take().unwrap().kill();
    println!("{:?}: one detector is killed", began.elapsed());

    ends_as_an_import(roles, 3, &tenant, &options);
}

/// Somebody who is stopped for longer than a session lives is taken for dead. When it goes on it believes that it still
/// has its partitions, in the middle of whatever step it was.
#[test]
fn a_detector_that_sleeps_and_wakes_changes_nothing() {
    let Some(broker) = broker::broker() else { return };
    let mut options = small_world(11);
    options.pace = Pace::Fast { real: Duration::from_secs(25) };
    let tenant = Tenant::start(options.clone());
    tenant.subscribe(&options);
    let log = log(&broker.addresses, "zombie");
    let roles: Vec<Role> =
        ["ingest", "detect", "detect", "archive"].map(|name| Role::start(name, &options, &tenant, &log)).into();
    let commits = |role: &Role| role.service().metric("harrier_log_commits_total", &["consumer=\"match\""]);
    assert!(until(SETTLE_TIME_MAX, || roles[1..3].iter().all(|role| commits(role) > 0.0)), "both have work");
    for (sleeper, other) in [(1, 2), (2, 1)] {
        let taken_over = |role: &Role| role.service().metric("harrier_log_commits_total", &[]);
        roles[sleeper].service().signal("-STOP");
        let before = taken_over(&roles[other]);
        // Longer than a session, whatever else happens: the moment is the point.
        until(Duration::from_secs(6), || false);
        assert!(taken_over(&roles[other]) > before, "the other works on");
        roles[sleeper].service().signal("-CONT");
        assert!(until(SETTLE_TIME_MAX, || roles[sleeper].service().get("/healthz").0 == 200));
    }
    ends_as_an_import(roles, 3, &tenant, &options);
}

/// Places between two effects on Kafka, each with the number of a role that comes there.
const PLACES: [(&str, usize); 5] = [
    ("kafka_outputs_written:2", 0),
    ("kafka_fenced:1", 1),
    ("kafka_before_commit:2", 2),
    ("archive_before_commit:1", 3),
    ("kafka_after_commit:1", 1),
];

/// Five kills at those places, five at random moments of random roles. `benches faults` does it by the hundred.
#[test]
fn ten_kills_of_any_role_change_nothing() {
    let Some(broker) = broker::broker() else { return };
    let mut dice = Dice::from_environment();
    let mut options = small_world(dice.below(1_000));
    options.pace = Pace::Fast { real: Duration::from_secs(40) };
    println!("world {} ends {}", options.seed, options.end.to_rfc3339());
    let tenant = Tenant::start(options.clone());
    tenant.subscribe(&options);
    let log = log(&broker.addresses, "kills");
    let names = ["ingest", "detect", "detect", "archive", "notify"];
    let mut roles: Vec<Role> = names.map(|name| Role::start(name, &options, &tenant, &log)).into();
    assert!(until(SETTLE_TIME_MAX, || tenant.fake.served().blobs_fetched_once > 0), "nothing comes");
    for (place, role) in PLACES {
        let random = dice.below(names.len() as u64) as usize;
        roles[random].service.take().unwrap().kill();
        roles[random].service = Some(Service::spawn_as(&roles[random].config, names[random], None));
        // Nothing to wait for: the moment is the point.
        until(Duration::from_millis(dice.below(3_000)), || false);
        roles[role].service.take().unwrap().kill();
        let code = Service::spawn_as(&roles[role].config, names[role], Some(place)).ended(SETTLE_TIME_MAX);
        assert_eq!(code, None, "{place} was reached");
        println!("{} killed, then {} at {place}; {:?}", names[random], names[role], tenant.fake.served());
        roles[role].service = Some(Service::spawn_as(&roles[role].config, names[role], None));
    }
    ends_as_an_import(roles, 3, &tenant, &options);
}

/// Waits until the archivist has all records, ends every role, and compares with an import into an embedded log.
fn ends_as_an_import(mut roles: Vec<Role>, archivist: usize, tenant: &Tenant, options: &Options) {
    let began = Instant::now();
    let world = tenant.fake.world();
    let archive = &roles[archivist];
    let all = || {
        let served = tenant.fake.served();
        served.blobs_fetched_once == served.blobs_total
            && archive.harrier.number("SELECT count(*) FROM events") >= world.records.len() as u64
    };
    let settled = until(SETTLE_TIME_MAX, all);
    println!("{:?}: all is there: {settled}; {:?}", began.elapsed(), tenant.fake.served());
    for role in &mut roles {
        let Some(service) = role.service.take() else { continue };
        // Before that it does not listen to signals yet.
        assert!(until(SETTLE_TIME_MAX, || service.event("started").is_some()));
        let stderr = service.stderr();
        assert_eq!(service.terminate(), Some(0), "{settled}\n{stderr}");
    }
    println!("{:?}: all have ended", began.elapsed());
    // What was judged after the last flush is archived by the next archiver.
    let archive = &mut roles[archivist];
    archive.service = Some(Service::start_as(&archive.config, "archive"));
    let file_import = Harrier::new();
    let file = file_import.file("records.jsonl", joined(&lines(world)));
    let (counts, _) = file_import.import(&[file], &["--domains", &options.domain]);
    let total = world.records.len() as u64;
    assert_eq!(counts, Counts { received: total, admitted: total, ..Counts::default() });
    let expected = file_import.standing();
    assert!(expected.len() >= 3, "the story is seen: {expected:#?}");
    until(SETTLE_TIME_MAX, || archive.harrier.standing() == expected);
    assert_eq!(archive.harrier.standing(), expected);
    assert_eq!(archive.harrier.events(), file_import.events());
    assert_eq!(archive.harrier.number("SELECT count(*) FROM dead_letters"), 0);
    assert_eq!(archive.service.take().unwrap().terminate(), Some(0));
}

/// Without a broker nobody can finish a step. Every role ends all the same, in time and in good order: what it was at is
/// done again by the next.
#[test]
fn every_role_ends_in_time_though_the_broker_is_gone() {
    let Some(broker) = broker::start("gone") else { return };
    let mut options = small_world(13);
    options.pace = Pace::Fast { real: Duration::from_secs(120) };
    let tenant = Tenant::start(options.clone());
    tenant.subscribe(&options);
    let log = log(&broker.addresses, "gone");
    let names = ["ingest", "detect", "archive", "notify", "all"];
    let mut roles: Vec<Role> = names.map(|name| Role::start(name, &options, &tenant, &log)).into();
    let at_work = |role: &Role| role.service().metric("harrier_log_commits_total", &["consumer=\"match\""]) > 0.0;
    assert!(until(SETTLE_TIME_MAX, || roles.iter().any(at_work)), "there is work to be broken off");
    broker.kill(1);
    for role in &roles {
        role.service().signal("-TERM");
    }
    let began = Instant::now();
    let (mut open, mut said) = (names.to_vec(), String::new());
    // Less than a service manager waits.
    let all_ended = until(Duration::from_secs(60), || {
        for (name, role) in names.iter().zip(&mut roles) {
            if open.contains(name) && !role.service.as_mut().unwrap().lives() {
                open.retain(|open| open != name);
                println!("{:?}: {name} has ended", began.elapsed());
            }
        }
        open.is_empty()
    });
    for (name, role) in names.iter().zip(&mut roles) {
        let service = role.service.take().unwrap();
        said.push_str(&format!("--- {name}\n{}\n", service.stderr()));
        if !open.contains(name) {
            let code = service.ended(Duration::from_secs(1));
            assert_eq!(code, Some(0), "{name}\n{said}");
        }
    }
    assert!(all_ended, "{open:?} go on\n{said}");
}

/// A day by the search alone, then all of them while the feeds are polled: what both have is one row.
#[test]
fn a_backfill_beside_the_pollers_doubles_nothing() {
    let Some(broker) = broker::broker() else { return };
    let searching = Searching { looks: 1, ..Searching::default() };
    let options = Options { users: 2, days: 3, searching, ..small_world(17) };
    let tenant = Tenant::start(options.clone());
    tenant.subscribe(&options);
    let more = format!("graph = \"http://{}\"\n{}", tenant.fake.address(), log(&broker.addresses, "backfill"));
    let mut roles: Vec<Role> = ["detect", "archive"].map(|name| Role::start(name, &options, &tenant, &more)).into();
    let harrier = Harrier::new();
    let config = configure(&harrier, &options, tenant.fake.address(), "1s", &more);
    let backfill = |since: &str, until: &str| {
        let mut backfill = command();
        let ran = finish(backfill.args(["backfill", "--since", since, "--until", until, "--config"]).arg(&config));
        assert_eq!(ran.code, Some(0), "{ran}");
    };
    backfill("2d", "1d");
    roles.push(Role::start("ingest", &options, &tenant, &more));
    backfill("4d", "0s");
    let records = tenant.fake.world().records.len() as u64;
    let archive = &roles[1].harrier;
    let archived = |which: &str| archive.number(&format!("SELECT count({which}) FROM events"));
    let all = || tenant.fake.served().blobs_fetched_once == tenant.fake.served().blobs_total;
    assert!(until(SETTLE_TIME_MAX, || all() && archived("*") >= records), "{} of {records}", archived("*"));
    assert_eq!((archived("*"), archived("DISTINCT id")), (records, records));
    for source in ["audit_search", "management_activity"] {
        assert!(archive.number(&format!("SELECT count(*) FROM events WHERE source = '{source}'")) > 0, "{source}");
    }
    // Anybody may ask how far the feeds are.
    let status = finish(command().args(["status", "--config"]).arg(&config));
    assert_eq!(status.code, Some(0), "{status}");
    assert!(status.stdout.contains("Audit.Exchange") && !status.stdout.contains("never"), "{status}");
}

#[test]
fn an_import_counts_the_same_on_kafka() {
    let Some(broker) = broker::broker() else { return };
    let options = small_world(3);
    let tenant = Tenant::start(options.clone());
    let world = tenant.fake.world();
    let harrier = Harrier::new();
    let config = harrier.file("harrier.toml", format!("data_dir = \"data\"\n{}", log(&broker.addresses, "import")));
    let file = harrier.file("records.jsonl", joined(&lines(world)));
    let total = world.records.len() as u64;
    for (admitted, duplicate) in [(total, 0), (0, total)] {
        let mut import = command();
        import
            .args(["import", "--tenant", "contoso", "--domains", &options.domain, "--config"])
            .arg(&config)
            .arg(&file);
        let ran = finish(&mut import);
        assert_eq!(ran.code, Some(0), "{ran}");
        assert_eq!(ran.counts(), Counts { received: total, admitted, duplicate, ..Counts::default() });
    }
    let embedded = Harrier::new();
    let file = embedded.file("records.jsonl", joined(&lines(world)));
    embedded.import(&[file], &["--domains", &options.domain]);
    assert_eq!(harrier.events(), embedded.events());
    assert_eq!(harrier.standing(), embedded.standing());
}

const EVERY_RECORD: &str = "title: Every record\nid: every_record\nlogsource: {product: m365}\nlevel: low\n\
                            detection: {s: {Operation: '*'}, condition: s}\n";

/// Two detectors run with the pack alone. What is imported with a rule of its own is judged by it, whoever has the
/// partition; nothing before is; and a detector that restarts with the pack takes nobody back.
#[test]
fn rules_change_at_one_offset_for_all_detectors() {
    let Some(broker) = broker::broker() else { return };
    let options = small_world(5);
    let tenant = Tenant::start(options.clone());
    let log = log(&broker.addresses, "epochs");
    let mut detectors = ["detect", "detect"].map(|name| Role::start(name, &options, &tenant, &log));
    let harrier = Harrier::new();
    harrier.file("every_record.yml", EVERY_RECORD);
    let mut text = format!("data_dir = \"data\"\n{log}");
    let pack = harrier.file("pack.toml", &text);
    text.push_str("\n[rules]\npaths = [\"every_record.yml\"]\n");
    let more = harrier.file("more.toml", &text);
    let lines = lines(tenant.fake.world());
    let (before, after) = lines.split_at(lines.len() / 2);
    let (before, after) = (harrier.file("before.jsonl", joined(before)), harrier.file("after.jsonl", joined(after)));
    let import = |config: &PathBuf, file: &PathBuf| {
        let mut import = command();
        import.args(["import", "--tenant", "contoso", "--domains", &options.domain, "--config"]).arg(config).arg(file);
        let ran = finish(&mut import);
        assert_eq!(ran.code, Some(0), "{ran}");
    };
    import(&pack, &before);
    import(&more, &after);
    let epoch = |role: &Role| role.service().metric("harrier_rule_set_epoch", &[]);
    assert_eq!(detectors.iter().map(epoch).fold(0.0, f64::max), 2.0);

    let restarted = &mut detectors[0];
    restarted.service.take().unwrap().kill();
    restarted.service = Some(Service::start_as(&restarted.config, "detect"));
    let has_asked = || detectors[0].service().event("rules_offered").is_some();
    assert!(until(SETTLE_TIME_MAX, has_asked), "it asks for its own");
    // Which waits until match has come to what was asked.
    import(&more, &after);
    assert_eq!(detectors.iter().map(epoch).fold(0.0, f64::max), 2.0);

    let judged = "SELECT count(DISTINCT event_id) FROM evidence WHERE finding_id IN \
                  (SELECT id FROM findings WHERE rule_id = 'every_record')";
    // All that came with it, and as much of what came before as whoever had partition 0 could read in an archive: only
    // the import's process can.
    let judged = harrier.number(judged);
    let came_with_it = (lines.len() - lines.len() / 2) as u64;
    assert!((came_with_it..=lines.len() as u64).contains(&judged), "{judged} of {came_with_it} to {}", lines.len());
}

#[test]
fn what_only_an_operator_can_mend_ends_with_78() {
    let Some(broker) = broker::broker() else { return };
    let harrier = Harrier::new();
    harrier.file("password", "wrong");
    let security =
        "[log.security]\nsasl_mechanism = \"SCRAM-SHA-256\"\nusername = \"harrier\"\npassword_file = \"password\"\n";
    let text = format!("data_dir = \"data\"\n{}\n{security}", log(&broker.addresses_sasl, "password"));
    let config = harrier.file("harrier.toml", text);
    let ran = finish(command().arg("run").arg("--config").arg(&config));
    assert_eq!(ran.code, Some(78), "{ran}");
    assert!(ran.stderr.contains("refuse the sign-in") && !ran.stderr.contains("wrong"), "{ran}");
}
