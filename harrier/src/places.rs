//! Tables of places: the operator's file in MaxMind's format (GeoLite2-City, DB-IP City and their like).
//!
//! A rule set names its table by the hash of the file, because what a record's place is must not depend on who judges it
//! or when. Each process that judges keeps copies of the last few tables under their hashes: so what was received before
//! a new table came is judged by the old one, also after a restart.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use detect::places::{Atlas, NoSuchPlaces, Place, Places};
use maxminddb::{Reader, geoip2};
use runtime::config::Config;
use sha2::{Digest, Sha256};

/// The folder of the copies, beside the log.
const FOLDER_NAME: &str = "places";

/// Copies kept. A table comes once a week and is in force within seconds.
const COPIES_MAX: usize = 3;

/// Largest table: it is held in memory. Those of cities are 60 to 130 MB.
const TABLE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Where a table gives no radius: one of cities is mostly right about the city.
const RADIUS_KM: f64 = 50.0;

/// The operator's table and the copies of those before it.
#[derive(Debug)]
pub struct PlaceFiles {
    file: Option<PathBuf>,
    folder: PathBuf,
    opened: Mutex<BTreeMap<String, Arc<dyn Places>>>,
}

impl PlaceFiles {
    pub fn of(config: &Config) -> PlaceFiles {
        let folder = config.data_dir.join(FOLDER_NAME);
        PlaceFiles { file: config.rules.places_file.clone(), folder, opened: Mutex::default() }
    }

    /// The name of the operator's table, known to be one; none if there is none.
    pub fn name(&self) -> io::Result<Option<String>> {
        let Some(file) = &self.file else { return Ok(None) };
        let (name, table) = read(file)?;
        self.remember(&name, table);
        Ok(Some(name))
    }

    /// Copies the operator's table of this name, so that it is there as long as it is asked for.
    pub fn keep(&self, name: &str) -> io::Result<()> {
        let (Some(file), copy) = (&self.file, self.copy(name)) else { return Ok(()) };
        if copy.exists() {
            // Asked for again: it is the last to be removed.
            return File::options().append(true).open(&copy)?.set_modified(SystemTime::now());
        }
        fs::create_dir_all(&self.folder)?;
        let next = copy.with_extension("next");
        fs::copy(file, &next)?;
        // Whoever replaces the file meanwhile must not have another table lie under this name for good.
        if read(&next)?.0 != name {
            return Err(io::Error::other("the table of places changed while it was copied"));
        }
        File::open(&next)?.sync_all()?;
        fs::rename(next, copy)?;
        self.forget()
    }

    /// Removes all copies but the newest.
    fn forget(&self) -> io::Result<()> {
        let mut copies: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            copies.push((entry.metadata()?.modified()?, entry.path()));
        }
        copies.sort();
        let too_many = copies.len().saturating_sub(COPIES_MAX);
        copies.iter().take(too_many).try_for_each(|(_, path)| fs::remove_file(path))
    }

    fn copy(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.mmdb"))
    }

    fn remember(&self, name: &str, table: Table) -> Arc<dyn Places> {
        let table: Arc<dyn Places> = Arc::new(table);
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        // Who judges by an older one holds it; a table is a hundred megabytes.
        opened.clear();
        opened.insert(name.to_owned(), table.clone());
        table
    }
}

impl Atlas for PlaceFiles {
    fn open(&self, name: &str) -> Result<Arc<dyn Places>, NoSuchPlaces> {
        let none = |why| NoSuchPlaces { name: name.to_owned(), why };
        // It is to be part of a path.
        if name.len() != 64 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(none(None));
        }
        if let Some(table) = self.opened.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Ok(table.clone());
        }
        let mut why = None;
        for path in [Some(self.copy(name)), self.file.clone()].into_iter().flatten() {
            match read(&path) {
                Ok((found, table)) if found == name => return Ok(self.remember(name, table)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => why = Some(Arc::new(error)),
            }
        }
        Err(none(why))
    }
}

/// A table and its name.
fn read(path: &Path) -> io::Result<(String, Table)> {
    let mut bytes = Vec::new();
    File::open(path)?.take(TABLE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > TABLE_BYTES_MAX {
        return Err(io::Error::other("a table of places of more than 1 GiB"));
    }
    let name = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let reader = Reader::from_source(bytes).map_err(io::Error::other)?;
    Ok((name, Table(reader)))
}

struct Table(Reader<Vec<u8>>);

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("of", &self.0.metadata().database_type).finish()
    }
}

impl Places for Table {
    fn place(&self, address: IpAddr) -> Option<Place> {
        let location = self.0.lookup(address).ok()?.decode::<geoip2::City<'_>>().ok()??.location;
        Place::new(location.latitude?, location.longitude?, location.accuracy_radius.map_or(RADIUS_KM, f64::from))
    }
}
