//! The table of metrics: a line for each, with its help, its name, its labels and, for a histogram, its buckets.
//! Structs, registration and the list of facts follow from it. To add a metric, add a line.

use super::Fact;
use super::handle::{Counter, Counters, Gauge, Gauges, Histogram, Histograms, LastTimes, Registry, Spec};
use super::label::{Label, closed, open};

/// Most tenants that have a label value of their own; Prometheus pays for each in every metric that names one.
pub const TENANTS_MAX: usize = 200;

const TENANT: Label = open("tenant", TENANTS_MAX);
/// Microsoft has five feeds; room for more and for misspelt ones.
const CONTENT_TYPE: Label = open("content_type", 20);
/// A value of records, so anyone may invent one: about 40 are documented.
const WORKLOAD: Label = open("workload", 60);
const SOURCE: Label = open("source", 20);
/// An HTTP status, or `none` where there was no answer.
const CODE: Label = open("code", 60);
const API: Label = closed("api", &["login", "management", "graph", "exchange", "reporting"]);
/// The embedded pack has tens of rules, SigmaHQ's Microsoft 365 rules are under a hundred.
const RULE: Label = open("rule", 1_000);
const LEVEL: Label = closed("level", &["informational", "low", "medium", "high", "critical"]);
const SINK: Label = open("sink", 50);
const SINK_TYPE: Label = open("type", 20);
const DATASET: Label = open("dataset", 30);
const TOPIC: Label = closed("topic", &["records", "verdicts", "matches", "findings", "coverage", "dead_letters"]);
const CONSUMER: Label = open("consumer", 10);
/// In the order in which a heartbeat passes them.
const STAGE: Label = closed("stage", &["ingest", "match", "correlate", "archive", "notify"]);
const LOG_LEVEL: Label = closed("level", &["error", "warn", "info", "debug", "trace"]);

/// Answers of remote services, and one rule batch.
const CALL_SECONDS: &[f64] = &[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
const BATCH_SECONDS: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];
/// From a minute to seven days: Microsoft promises nothing shorter, and keeps nothing longer.
const DELAY_SECONDS: &[f64] =
    &[60.0, 300.0, 900.0, 1_800.0, 3_600.0, 7_200.0, 21_600.0, 43_200.0, 86_400.0, 172_800.0, 604_800.0];
const DETECTION_SECONDS: &[f64] = &[0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3_600.0];

macro_rules! metrics {
    ($(
        $(#[doc = $stage_doc:literal])+
        $stage:ident: $Stage:ident {
            $(
                $(#[doc = $help:literal])+
                $field:ident: $Type:ty = $name:literal, [$($label:expr),*] $(, $buckets:expr)?;
            )+
        }
    )+) => {
        /// The metrics of each stage.
        #[derive(Debug)]
        pub struct Stages {
            $($(#[doc = $stage_doc])+ pub $stage: $Stage,)+
        }

        impl Stages {
            pub(super) fn build(registry: &Registry) -> Stages {
                Stages { $($stage: $Stage::build(registry),)+ }
            }

            pub(super) fn begin(&self, given: &[(&str, &str)]) {
                $(self.$stage.begin(given);)+
            }
        }

        $(
            $(#[doc = $stage_doc])+
            #[derive(Clone, Debug)]
            pub struct $Stage {
                $($(#[doc = $help])+ #[doc = concat!("\n\n`harrier_", $name, "`")] pub $field: $Type,)+
            }

            impl $Stage {
                fn build(registry: &Registry) -> $Stage {
                    $Stage { $($field: <$Type>::build(registry, &Spec {
                        name: $name,
                        help: help(concat!($($help),+)),
                        labels: [$($label),*],
                        buckets: first(&[$($buckets,)? &[]]),
                    }),)+ }
                }

                fn begin(&self, given: &[(&str, &str)]) {
                    $(self.$field.begin(given);)+
                }
            }
        )+

        /// Every metric of the project.
        pub const FACTS: &[Fact] = &[$($(Fact {
            name: $name,
            kind: <$Type>::KIND,
            labels: &[$($label),*],
            help: help(concat!($($help),+)),
        },)+)+];
    };
}

const fn help(doc: &'static str) -> &'static str {
    doc.trim_ascii()
}

const fn first(buckets: &[&'static [f64]]) -> &'static [f64] {
    buckets[0]
}

metrics! {
    /// Calls to Microsoft's APIs.
    api: Api {
        /// Requests sent to Microsoft, by API and HTTP status (none: no answer came; 429: throttled, by whatever status).
        requests: Counters<3> = "api_requests_total", [TENANT, API, CODE];
        /// Time until Microsoft answered a request.
        request_duration: Histograms<1> = "api_request_duration_seconds", [API], CALL_SECONDS;
        /// How long Microsoft last asked us to wait.
        retry_after: Gauges<2> = "api_retry_after_seconds", [TENANT, API];
        /// Access tokens asked for.
        auth_refreshes: Counters<2> = "auth_refreshes_total", [TENANT, closed("result", &["ok", "failed"])];
        /// Whether Microsoft says that the subscription is enabled (1) or not (0).
        subscription_enabled: Gauges<2> = "subscription_enabled", [TENANT, CONTENT_TYPE];
    }

    /// Polling of content blobs.
    poll: Poll {
        /// When a feed was last listed and all it listed was fetched or put down for fetching.
        last_success: LastTimes<2> = "poll_last_success_timestamp_seconds", [TENANT, CONTENT_TYPE];
        /// Content blobs, by what became of them (failed: a try that will be made again).
        content_blobs: Counters<3> = "content_blobs_total",
            [TENANT, CONTENT_TYPE, closed("result", &["listed", "fetched", "failed", "gone", "expired"])];
        /// Content blobs that are listed and not fetched yet.
        content_blobs_pending: Gauges<2> = "content_blobs_pending", [TENANT, CONTENT_TYPE];
        /// Age of a content blob when it was fetched.
        content_blob_age: Histograms<1> = "content_blob_age_seconds", [CONTENT_TYPE], DELAY_SECONDS;
        /// When the first content blob that is not fetched yet will be gone.
        content_blob_next_expiration: Gauges<2> =
            "content_blob_next_expiration_timestamp_seconds", [TENANT, CONTENT_TYPE];
        /// Microsoft's own delay: from an event to its content blob.
        event_delivery_delay: Histograms<1> = "event_delivery_delay_seconds", [WORKLOAD], DELAY_SECONDS;
    }

    /// Records as they come in and are admitted.
    ingest: Ingest {
        /// Records received.
        received: Counters<2> = "events_received_total", [TENANT, SOURCE];
        /// Records received before with the same content.
        duplicates: Counters<1> = "events_duplicate_total", [TENANT];
        /// Records whose id came before with other content.
        variants: Counters<1> = "events_variant_total", [TENANT];
        /// Records that cannot be read; they are in the dead letters.
        rejected: Counters<1> = "events_rejected_total",
            [closed("reason", &["not_utf8", "not_json", "not_an_object", "no_time", "too_large", "other"])];
    }

    /// The log between the stages.
    log: LogMetrics {
        /// Messages that a consumer has still to read.
        consumer_lag: Gauges<2> = "log_consumer_lag_records", [TOPIC, CONSUMER];
        /// Steps that were committed.
        commits: Counters<1> = "log_commits_total", [CONSUMER];
    }

    /// Rules and windows.
    engine: Engine {
        /// Up to when every feed of a tenant is complete.
        watermark: Gauges<1> = "watermark_timestamp_seconds", [TENANT];
        /// Rules, by how they loaded.
        rules_loaded: Gauges<1> = "rules_loaded", [closed("status", &["enabled", "disabled", "broken"])];
        /// 1 while the rule files as they are cannot be used, and those before them stay in force.
        rules_refused: Gauges<0> = "rules_refused", [];
        /// The epoch of the rule set that records were last judged by.
        rule_set_epoch: Gauges<0> = "rule_set_epoch", [];
        /// Rules in force that have not been shown all of the archive yet.
        rules_behind: Gauge = "rules_behind", [];
        /// Records read back from the archive to be judged again.
        records_judged_again: Counter = "records_judged_again_total", [];
        /// Records that a rule was evaluated on.
        rule_evaluations: Counters<1> = "rule_evaluations_total", [RULE];
        /// Records that a rule matched.
        rule_matches: Counters<1> = "rule_matches_total", [RULE];
        /// When the newest record that a rule matched was received; absent until one is.
        rule_last_match: Gauges<1> = "rule_last_match_timestamp_seconds", [RULE];
        /// Time to evaluate all rules on one batch of records.
        rule_batch_duration: Histogram = "rule_batch_duration_seconds", [], BATCH_SECONDS;
        /// Matches without a value for a field their rule groups by; they are not counted by the rule.
        group_key_missing: Counters<1> = "group_key_missing_total", [RULE];
        /// Records that an exception of the tuning file took from a rule.
        records_excepted: Counters<1> = "records_excepted_total", [RULE];
        /// Members, histories and episodes held for windows and baselines.
        window_state_entries: Gauge = "window_state_entries", [];
        /// Matches older than what is remembered; they were judged with records read back from the archive.
        matches_late: Counters<1> = "matches_late_total", [TENANT];
        /// Times that the archive was asked for what late matches need.
        late_lookups: Counter = "late_lookups_total", [];
        /// Records that are not known any more because the archive does not keep them.
        known_retired: Counter = "known_retired_total", [];
        /// Members of windows that were dropped because the archive has them.
        members_forgotten: Counter = "members_forgotten_total", [];
        /// Times that a bound of the engine took effect (such as too many members in a window).
        limits_reached: Counters<1> = "limits_reached_total", [open("limit", 30)];
    }

    /// What was found.
    findings: Findings {
        /// Findings created.
        created: Counters<2> = "findings_total", [RULE, LEVEL];
        /// From the receipt of a record to the finding that it caused.
        detection_delay: Histogram = "detection_delay_seconds", [], DETECTION_SECONDS;
    }

    /// Delivery of findings.
    sinks: Sinks {
        /// Notifications delivered.
        notifications: Counters<2> = "notifications_total", [SINK, SINK_TYPE];
        /// Attempts to deliver that failed.
        notifications_failed: Counters<3> = "notifications_failed_total", [SINK, SINK_TYPE,
            closed("reason", &["network", "timeout", "auth", "rejected", "throttled", "server", "gone", "other"])];
        /// Time of one attempt to deliver.
        notification_duration: Histograms<1> = "notification_duration_seconds", [SINK_TYPE], CALL_SECONDS;
        /// Findings waiting for delivery.
        queue_length: Gauges<1> = "notification_queue_length", [SINK];
        /// Since when the oldest finding has been waiting; absent while none is.
        oldest_pending: Gauges<1> = "notification_oldest_pending_timestamp_seconds", [SINK];
        /// Findings that could not be delivered and are not tried again by themselves.
        dead_letters: Gauges<1> = "dead_letter_queue_length", [SINK];
    }

    /// The archive.
    archive: Archive {
        /// Rows committed.
        rows: Counters<1> = "archive_rows_total", [DATASET];
        /// Bytes of Parquet committed.
        bytes: Counters<1> = "archive_bytes_total", [DATASET];
        /// Commits made.
        commits: Counters<1> = "archive_commits_total", [DATASET];
        /// Commits and writes that failed and are tried again.
        failures: Counters<1> = "archive_failures_total", [DATASET];
        /// Rows past their time that were taken out.
        retired_rows: Counters<1> = "archive_retired_rows_total", [DATASET];
        /// Rows read from the log and not committed yet.
        uncommitted_rows: Gauges<1> = "archive_uncommitted_rows", [DATASET];
        /// When all that had been read was last committed (also when there was nothing to commit).
        last_commit: LastTimes<1> = "archive_last_commit_timestamp_seconds", [DATASET];
    }

    /// The archive's door for PostgreSQL clients.
    postgres: Postgres {
        /// Clients that are signed in.
        connections: Gauge = "postgres_connections", [];
        /// Sign-ins with a wrong name or password.
        sign_ins_refused: Counter = "postgres_sign_ins_refused_total", [];
        /// Questions, by how they ended (ended: cancelled, out of time, or the client had gone).
        queries: Counters<1> = "postgres_queries_total", [closed("result", &["answered", "failed", "ended"])];
        /// Times that a bound of the door took effect.
        limits_reached: Counters<1> = "postgres_limits_reached_total", [closed("limit", &["strangers", "connections",
            "sign_in_time", "idle_time", "stranger_bytes", "message_bytes", "queries", "query_time", "statements", "prepared",
            "portals"])];
    }

    /// Harrier itself.
    own: Own {
        /// Always 1: which harrier this is.
        build_info: Gauges<2> = "build_info", [open("version", 1), open("revision", 1)];
        /// When a stage last let a heartbeat pass: the moment it was sent.
        heartbeat: LastTimes<1> = "heartbeat_timestamp_seconds", [STAGE];
        /// Free space where data_dir is; absent until measured.
        data_dir_free: Gauges<0> = "data_dir_free_bytes", [];
        /// Log messages, those held back included.
        log_messages: Counters<1> = "log_messages_total", [LOG_LEVEL];
        /// Log messages held back because they repeated another.
        log_messages_held_back: Counter = "log_messages_held_back_total", [];
        /// Label values that became "other" because the label has no room for more.
        label_values_limited: Counter = "label_values_limited_total", [];
    }
}
