//! Where addresses are, as far as a table of the operator's says, and how far apart two of them are.
//!
//! The table is no part of the rules and too large to travel with them: a rule book names it by its hash, and whoever
//! judges by that book must have the table of that name ([`Atlas`]). So a record is placed alike everywhere and at every
//! time, and a new table is a change of rules like any other.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

/// Mean radius of the earth.
const EARTH_KM: f64 = 6_371.0;

/// A spot on the earth, and how far around it the address may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// Degrees north.
    pub latitude: f64,
    /// Degrees east.
    pub longitude: f64,
    pub radius_km: f64,
}

impl Place {
    /// None if these are no places on the earth.
    pub fn new(latitude: f64, longitude: f64, radius_km: f64) -> Option<Place> {
        let is_place =
            latitude.abs() <= 90.0 && longitude.abs() <= 180.0 && (0.0..=EARTH_KM * 4.0).contains(&radius_km);
        is_place.then_some(Place { latitude, longitude, radius_km })
    }

    /// The least distance between what lies around two spots, in whole kilometres: so the last digits of a sine, which
    /// differ between machines, decide nothing.
    pub fn least_km(self, other: Place) -> u32 {
        let half = |one: f64, other: f64| ((one - other).to_radians() / 2.0).sin().powi(2);
        let north = self.latitude.to_radians().cos() * other.latitude.to_radians().cos();
        let a = half(self.latitude, other.latitude) + north * half(self.longitude, other.longitude);
        let distance = 2.0 * EARTH_KM * a.clamp(0.0, 1.0).sqrt().asin();
        // Rounded first, and never negative: the cast cuts off nothing.
        (distance - self.radius_km - other.radius_km).max(0.0).round() as u32
    }
}

/// As a match carries it: read back by [`Place::read`].
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.4} {:.4} {:.0}", self.latitude, self.longitude, self.radius_km)
    }
}

impl Place {
    pub(crate) fn read(text: &str) -> Option<Place> {
        let mut numbers = text.split(' ').map(str::parse::<f64>);
        let mut next = || numbers.next()?.ok();
        Place::new(next()?, next()?, next()?)
    }
}

/// Where addresses are.
pub trait Places: fmt::Debug + Send + Sync {
    /// None where it does not say.
    fn place(&self, address: IpAddr) -> Option<Place>;
}

/// Tables of places by their names.
pub trait Atlas: fmt::Debug + Send + Sync {
    /// The table of this name.
    fn open(&self, name: &str) -> Result<Arc<dyn Places>, NoSuchPlaces>;
}

/// The table of places that a rule set was made for is not here, or cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the rules in force need the places file with sha256 {name}: set [rules] places_file to it{}", .why.as_ref().map_or_else(String::new, |why| format!(" ({why})")))]
pub struct NoSuchPlaces {
    pub name: String,
    pub why: Option<Arc<std::io::Error>>,
}

/// An atlas without tables.
#[derive(Debug)]
pub struct NoPlaces;

impl Atlas for NoPlaces {
    fn open(&self, name: &str) -> Result<Arc<dyn Places>, NoSuchPlaces> {
        Err(NoSuchPlaces { name: name.to_owned(), why: None })
    }
}

/// A table that a rule's test brings along.
impl Places for Vec<(IpNet, Place)> {
    fn place(&self, address: IpAddr) -> Option<Place> {
        self.iter().find(|(network, _)| network.contains(&address)).map(|(_, place)| *place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_the_atlas() {
        let place = |latitude, longitude| Place::new(latitude, longitude, 0.0).unwrap();
        let (berlin, sydney, london) = (place(52.52, 13.405), place(-33.868, 151.207), place(51.507, -0.128));
        assert_eq!((berlin.least_km(sydney), sydney.least_km(berlin)), (16_094, 16_094));
        assert_eq!((berlin.least_km(london), berlin.least_km(berlin)), (932, 0));
        assert_eq!(place(0.0, 179.5).least_km(place(0.0, -179.5)), 111);
        assert_eq!(place(90.0, 0.0).least_km(place(-90.0, 0.0)), 20_015);
        let wide = |radius| Place::new(52.52, 13.405, radius).unwrap();
        assert_eq!((wide(400.0).least_km(london), wide(1_000.0).least_km(london)), (532, 0));
    }

    #[test]
    fn a_place_is_read_back_and_nonsense_is_none() {
        let place = Place::new(-33.86786, 151.20732, 20.4).unwrap();
        assert_eq!(Place::read(&place.to_string()), Place::new(-33.8679, 151.2073, 20.0));
        for text in ["", "1 2", "a b c", "91 0 0", "0 181 0", "0 0 -1", "nan nan nan", "0 0 inf"] {
            assert_eq!(Place::read(text), None, "{text}");
        }
    }
}
