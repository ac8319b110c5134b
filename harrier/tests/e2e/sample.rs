//! What is played: worlds and traffic from a seed, and the real data if it is there.

use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use simulate::{Options, World};

/// A small company with an account takeover, ending at a fixed moment.
pub fn world(seed: u64) -> World {
    let mut options = Options::new("2026-11-20T16:30:00Z".parse().unwrap());
    (options.seed, options.users, options.days) = (seed, 5, 2);
    World::generate(&options)
}

/// A world as lines of JSON.
pub fn lines(world: &World) -> Vec<String> {
    world.records.iter().map(|record| record.json.clone()).collect()
}

pub fn joined(lines: &[impl AsRef<str>]) -> String {
    lines.iter().map(|line| format!("{}\n", line.as_ref())).collect()
}

/// A record of an inbox rule that sends mail outside; `number` makes it its own.
pub fn forwarding_rule(number: u32, at: DateTime<Utc>) -> String {
    let at = at.format("%Y-%m-%dT%H:%M:%S");
    format!(
        r#"{{"CreationTime":"{at}","Id":"00000000-0000-0000-0000-{number:012}","Operation":"New-InboxRule","OrganizationId":"11111111-1111-1111-1111-111111111111","RecordType":1,"ResultStatus":"True","UserKey":"1","UserType":2,"Version":1,"Workload":"Exchange","ClientIP":"203.0.113.77:50123","ObjectId":"j.doe","UserId":"user{number}@contoso.example","Parameters":[{{"Name":"Name","Value":"forward"}},{{"Name":"ForwardTo","Value":"drop{number}@evil.example"}}]}}"#
    )
}

/// An ordinary record.
pub fn sign_in(number: u32) -> String {
    let at = "2026-11-20T10:00:00Z".parse::<DateTime<Utc>>().unwrap() + TimeDelta::seconds(number.into());
    let at = at.format("%Y-%m-%dT%H:%M:%S");
    format!(
        r#"{{"CreationTime":"{at}","Id":"00000000-0000-0000-0001-{number:012}","Operation":"UserLoggedIn","RecordType":15,"ResultStatus":"Success","UserType":0,"Version":1,"Workload":"AzureActiveDirectory","ClientIP":"198.51.100.7","ObjectId":"app","UserId":"user{number}@contoso.example"}}"#
    )
}

/// The folder of real data, if it is there.
pub fn real_data() -> Option<PathBuf> {
    let folder = match std::env::var_os("HARRIER_TEST_DATA") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
    };
    if !folder.is_dir() {
        println!("skipped: no test data");
        return None;
    }
    Some(folder)
}

/// Numbers from a seed: enough to shuffle lines and to choose moments.
pub struct Dice(u64);

impl Dice {
    /// Prints the seed; `HARRIER_TEST_SEED` sets it.
    pub fn from_environment() -> Dice {
        let given = std::env::var("HARRIER_TEST_SEED").ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| Utc::now().timestamp_micros().unsigned_abs());
        println!("HARRIER_TEST_SEED={seed}");
        Dice(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at as u64 + 1) as usize);
        }
    }
}
