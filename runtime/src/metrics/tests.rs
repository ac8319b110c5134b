use super::label::OTHER;
use super::*;

fn start() -> DateTime<Utc> {
    "2026-11-22T10:00:00Z".parse().unwrap()
}

#[test]
fn names_are_unique_and_follow_the_conventions() {
    let mut names: Vec<&str> = FACTS.iter().map(|fact| fact.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), FACTS.len());
    for fact in FACTS {
        assert_eq!(fact.name.ends_with("_total"), fact.kind == Kind::Counter, "{}", fact.name);
        assert!(fact.help.ends_with(['.', ')']) && !fact.help.contains(['\n', '\\']), "{}: {}", fact.name, fact.help);
        for label in fact.labels {
            assert!(!["user", "ip", "mailbox", "operation", "address"].contains(&label.name), "{}", fact.name);
        }
    }
}

#[test]
fn every_metric_is_in_the_text_of_a_fresh_process_once() {
    let text = Metrics::started("abc", start()).text().unwrap();
    for fact in FACTS {
        let line = format!("# TYPE harrier_{} {}\n", fact.name, fact.kind.as_str());
        assert_eq!(text.matches(&line).count(), 1, "{line}");
    }
    assert!(text.contains("harrier_build_info{revision=\"abc\",version="));
    assert!(text.contains("harrier_log_messages_total{level=\"error\"} 0\n"));
    // Space that was not measured is not shown as no space.
    assert!(!text.contains("\nharrier_data_dir_free_bytes "));
}

#[test]
fn series_begin_at_zero_and_times_at_the_start() {
    let metrics = Metrics::started("abc", start());
    metrics.begin(&[("tenant", "contoso"), ("content_type", "Audit.Exchange")]);
    let text = metrics.text().unwrap();
    for line in [
        "harrier_heartbeat_timestamp_seconds{stage=\"match\"} 1795341600\n",
        "harrier_poll_last_success_timestamp_seconds{content_type=\"Audit.Exchange\",tenant=\"contoso\"} 1795341600\n",
        "harrier_content_blobs_total{content_type=\"Audit.Exchange\",result=\"expired\",tenant=\"contoso\"} 0\n",
        "harrier_auth_refreshes_total{result=\"failed\",tenant=\"contoso\"} 0\n",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    // Beginning again sets nothing back.
    metrics.poll.last_success.set(["contoso", "Audit.Exchange"], start() + chrono::TimeDelta::hours(1));
    metrics.ingest.duplicates.with(["contoso"]).add(3);
    metrics.begin(&[("tenant", "contoso"), ("content_type", "Audit.Exchange")]);
    assert_eq!(metrics.poll.last_success.value(["contoso", "Audit.Exchange"]), 1_795_345_200.0);
    assert_eq!(metrics.ingest.duplicates.with(["contoso"]).value(), 3);
}

#[test]
fn no_label_grows_without_bound() {
    let metrics = Metrics::started("abc", start());
    for number in 0..TENANTS_MAX + 50 {
        metrics.ingest.duplicates.with([&format!("t{number}")]).inc();
    }
    assert_eq!(metrics.ingest.duplicates.with([OTHER]).value(), 50);
    // The bound holds over all metrics, so the same tenants have a name in each of them.
    assert_eq!(metrics.ingest.variants.with(["t7"]).value(), 0);
    metrics.ingest.variants.with(["one-more"]).inc();
    assert_eq!(metrics.ingest.variants.with([OTHER]).value(), 1);
    metrics.ingest.rejected.with(["\u{1b}[2J a reason from a record"]).inc();
    assert_eq!(metrics.ingest.rejected.with([OTHER]).value(), 1);
    assert_eq!(metrics.own.label_values_limited.value(), 52);
}

#[test]
fn a_gauge_that_is_removed_is_absent() {
    let metrics = Metrics::started("abc", start());
    metrics.sinks.oldest_pending.with(["soc"]).set_time(start());
    assert!(metrics.text().unwrap().contains("pending_timestamp_seconds{sink=\"soc\"} 1795341600\n"));
    metrics.sinks.oldest_pending.remove(["soc"]);
    assert!(!metrics.text().unwrap().contains("sink=\"soc\""));
}

#[test]
fn a_delay_is_never_negative() {
    let metrics = Metrics::started("abc", start());
    let delay = metrics.poll.event_delivery_delay.with(["Exchange"]);
    delay.observe_seconds(-5.0);
    delay.observe(std::time::Duration::from_secs(90));
    assert_eq!(delay.count(), 2);
    assert!(metrics.text().unwrap().contains("event_delivery_delay_seconds_sum{workload=\"Exchange\"} 90\n"));
}
