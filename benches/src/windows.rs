//! What windows cost as they grow: many groups, one large group, records a day late.
//!
//! All of detection in memory, on one thread, by one rule; records are read before the clock starts, so what is measured
//! is matching, windows and findings. Each case is a process of its own, because memory once used is never given back
//! whole.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, ValueEnum};
use detect::matcher::Matcher;
use detect::offline::Offline;
use detect::rule::{RuleSet, Source, Tuning};
use schemas::Event;
use schemas::tenant::Tenant;

use crate::process::resident_kib;
use crate::record::imported;

/// Records of one step, as the services take them.
const STEP_RECORDS: usize = 1_000;

/// One record in so many is late, where some are.
const LATE_EVERY: usize = 10;

#[derive(Debug, Args)]
pub struct Arguments {
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000,1000000")]
    records: Vec<usize>,
    #[arg(long, value_delimiter = ',', default_value = "event-count,value-count,new-value")]
    operators: Vec<Operator>,
    #[arg(long, value_delimiter = ',', default_value = "groups,late-groups,group,late-group,full-group")]
    shapes: Vec<Shape>,
    /// One case, in this process.
    #[arg(long, hide = true)]
    one: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Operator {
    EventCount,
    ValueCount,
    NewValue,
}

/// How records come.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Shape {
    /// A group for each record.
    Groups,
    /// The same, every tenth a day late.
    LateGroups,
    /// One group for all, with never enough in a window.
    Group,
    /// The same, every tenth a day late.
    LateGroup,
    /// One group for all, and every window is full.
    FullGroup,
}

impl Operator {
    fn rule(self) -> &'static str {
        match self {
            Operator::EventCount => "type: event_count, timespan: 10m, condition: {gte: 10}}",
            Operator::ValueCount => "type: value_count, timespan: 10m, condition: {field: client_ip, gte: 10}}",
            Operator::NewValue => {
                "type: x_new_value}\nx-field: client_ip\nx-history: 30d\nx-min-days: 0\nx-min-days-seen: 0"
            }
        }
    }
}

impl Shape {
    fn is_late(self) -> bool {
        matches!(self, Shape::LateGroups | Shape::LateGroup)
    }

    fn is_one_group(self) -> bool {
        matches!(self, Shape::Group | Shape::LateGroup | Shape::FullGroup)
    }

    fn seconds_apart(self) -> i64 {
        match self {
            Shape::Group | Shape::LateGroup => 120,
            Shape::Groups | Shape::LateGroups | Shape::FullGroup => 1,
        }
    }
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.one {
        let (&[operator], &[shape], &[records]) = (&*arguments.operators, &*arguments.shapes, &*arguments.records)
        else {
            anyhow::bail!("one of each")
        };
        return one(operator, shape, records);
    }
    println!("| operator | shape | records | records/s | bytes an entry | findings |\n|---|---|---|---|---|---|");
    for operator in &arguments.operators {
        for shape in &arguments.shapes {
            for records in &arguments.records {
                let name = |value: &dyn Fn() -> Option<clap::builder::PossibleValue>| {
                    value().map(|value| value.get_name().to_owned()).unwrap_or_default()
                };
                let status = Command::new(std::env::current_exe()?)
                    .args(["windows", "--one", "--operators", &name(&|| operator.to_possible_value())])
                    .args(["--shapes", &name(&|| shape.to_possible_value()), "--records", &records.to_string()])
                    .status()
                    .context("cannot start a process for a case")?;
                ensure!(status.success(), "{operator:?} {shape:?} {records}: {status}");
            }
        }
    }
    Ok(())
}

fn one(operator: Operator, shape: Shape, records: usize) -> anyhow::Result<()> {
    let tenant: Tenant = "t1".parse()?;
    let text = format!(
        "title: R\nid: r\nlogsource: {{product: m365}}\ndetection: {{s: {{Operation: UserLoggedIn}}, condition: s}}\n---\n\
         title: W\nid: w\ncorrelation: {{rules: [r], group-by: [user_id], {}\n",
        operator.rule()
    );
    let rules = RuleSet::load(vec![Source { file: "windows.yml".into(), text }], &Tuning::default())
        .map_err(|errors| anyhow::anyhow!("{errors}"))?;
    let matcher = Matcher::new(rules.clone(), BTreeMap::new());
    let mut offline = Offline::new(&rules, &matcher);
    let (mut taken, mut held) = (Duration::ZERO, 0_u64);
    let before = resident_kib(std::process::id()).unwrap_or_default();
    for step in order(shape, records).chunks(STEP_RECORDS) {
        let events: Vec<Event> = step
            .iter()
            .map(|&number| Event::read(&imported(&tenant, record(shape, number))))
            .collect::<Result<_, _>>()?;
        let began = Instant::now();
        offline.feed_admitted(&events);
        taken += began.elapsed();
        held = held.max(resident_kib(std::process::id()).unwrap_or_default());
    }
    let entries = offline.entries().max(1);
    println!(
        "| {operator:?} | {shape:?} | {records} | {:.0} | {} | {} |",
        records as f64 / taken.as_secs_f64(),
        held.saturating_sub(before) * 1024 / entries as u64,
        offline.standing().count()
    );
    Ok(())
}

/// The records' numbers in the order in which they come: a late one as many later as are in a day.
fn order(shape: Shape, records: usize) -> Vec<usize> {
    let day = (TimeDelta::days(1).num_seconds() / shape.seconds_apart()) as usize;
    let mut order: Vec<(usize, usize)> = (0..records)
        .map(|number| (if shape.is_late() && number % LATE_EVERY == 0 { number + day } else { number }, number))
        .collect();
    order.sort_unstable();
    order.into_iter().map(|(_, number)| number).collect()
}

fn record(shape: Shape, number: usize) -> Vec<u8> {
    let time: DateTime<Utc> = DateTime::UNIX_EPOCH
        + TimeDelta::days(15_000)
        + TimeDelta::seconds(shape.seconds_apart() * i64::try_from(number).unwrap_or_default());
    let user = if shape.is_one_group() { 0 } else { number };
    format!(
        r#"{{"Id":"{number}","CreationTime":"{}","Workload":"AzureActiveDirectory","Operation":"UserLoggedIn","UserId":"user{user}@contoso.example","ClientIP":"10.{}.{}.{}"}}"#,
        time.format("%FT%T"),
        number >> 16 & 255,
        number >> 8 & 255,
        number & 255
    )
    .into_bytes()
}
