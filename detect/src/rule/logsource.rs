//! Which records a rule speaks of, and in whose names for their fields: see [`super::dialect`].

use schemas::Event;
use schemas::field;

use super::report::{Code, Problems};
use super::yaml::Node;

/// The records a rule speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logsource {
    /// Values of `Workload`, one of which it must be; empty for any.
    workloads: &'static [&'static str],
    /// Only sign-ins, or no sign-ins.
    sign_ins: Option<bool>,
    pub(super) dialect: Dialect,
    /// What it is called, if harrier has no records of it.
    without_records: Option<&'static str>,
}

/// Whose field names the rule uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dialect {
    /// The record's own.
    Record,
    /// Those of Defender for Cloud Apps alerts.
    Alert,
    /// Those of the Entra portals.
    Entra,
}

const ENTRA: &[&str] = &["AzureActiveDirectory"];
const ALERTS: &[&str] = &["SecurityComplianceCenter", "ThreatIntelligence", "ThreatManagement", "AirInvestigation"];

/// Every logsource that rules for Microsoft 365 are written for: product, service, and which records those are. The last
/// are logs of their own, which harrier does not collect: their rules load and never match.
const SOURCES: &[(&str, Option<&str>, Logsource)] = {
    const fn of(workloads: &'static [&'static str], sign_ins: Option<bool>, dialect: Dialect) -> Logsource {
        Logsource { workloads, sign_ins, dialect, without_records: None }
    }
    const fn without_records(name: &'static str) -> Logsource {
        Logsource { workloads: &[], sign_ins: None, dialect: Dialect::Entra, without_records: Some(name) }
    }
    &[
        ("m365", None, of(&[], None, Dialect::Record)),
        ("m365", Some("audit"), of(&[], None, Dialect::Record)),
        ("m365", Some("exchange"), of(&["Exchange"], None, Dialect::Record)),
        ("m365", Some("threat_management"), of(ALERTS, None, Dialect::Alert)),
        ("m365", Some("threat_detection"), of(ALERTS, None, Dialect::Alert)),
        ("m365", Some("sharepoint"), of(&["SharePoint", "OneDrive"], None, Dialect::Record)),
        ("m365", Some("teams"), of(&["MicrosoftTeams"], None, Dialect::Record)),
        ("m365", Some("entra"), of(ENTRA, None, Dialect::Record)),
        ("azure", None, of(ENTRA, None, Dialect::Entra)),
        ("azure", Some("auditlogs"), of(ENTRA, Some(false), Dialect::Entra)),
        ("azure", Some("signinlogs"), of(ENTRA, Some(true), Dialect::Entra)),
        ("azure", Some("activitylogs"), without_records("azure/activitylogs")),
        ("azure", Some("pim"), without_records("azure/pim")),
        ("azure", Some("riskdetection"), without_records("azure/riskdetection")),
    ]
};

fn is_sign_in(event: &Event) -> bool {
    let operation = event.text(field::OPERATION).unwrap_or_default();
    ["userloggedin", "userloginfailed"]
        .iter()
        .any(|name| operation.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)))
}

impl Logsource {
    /// Whether the record is one of those.
    pub fn covers(&self, event: &Event) -> bool {
        let is_own = |workload: &str| self.workloads.iter().any(|own| own.eq_ignore_ascii_case(workload));
        self.without_records.is_none()
            && (self.workloads.is_empty() || is_own(event.text(field::WORKLOAD).unwrap_or_default()))
            && self.sign_ins.is_none_or(|expected| expected == is_sign_in(event))
    }

    /// What a record must be, in words; nothing where any record will do.
    pub fn wants(&self) -> Option<String> {
        if let Some(name) = self.without_records {
            return Some(format!("{name}, which harrier does not collect"));
        }
        let sign_ins = self.sign_ins.map(|wanted| if wanted { "sign-ins only" } else { "no sign-ins" });
        let workloads = (!self.workloads.is_empty()).then(|| format!("Workload: {}", self.workloads.join(" or ")));
        match (workloads, sign_ins) {
            (Some(workloads), Some(sign_ins)) => Some(format!("{workloads}, {sign_ins}")),
            (workloads, sign_ins) => workloads.or(sign_ins.map(str::to_owned)),
        }
    }

    /// Values of `Workload`, one of which a record must have; empty for any.
    pub(super) fn workloads(&self) -> &'static [&'static str] {
        self.workloads
    }

    /// What it is called, if harrier has no records of it.
    pub(super) fn without_records(&self) -> Option<&'static str> {
        self.without_records
    }

    /// Whether every record of another one is one of these: where a filter speaks of this, it speaks of those.
    pub fn includes(&self, other: &Logsource) -> bool {
        let workloads = self.workloads.is_empty()
            || !other.workloads.is_empty() && other.workloads.iter().all(|name| self.workloads.contains(name));
        let sign_ins = self.sign_ins.is_none() || self.sign_ins == other.sign_ins;
        match other.without_records {
            Some(name) => self.without_records.map_or(sign_ins, |own| own == name),
            None => self.without_records.is_none() && workloads && sign_ins,
        }
    }

    /// Whether its rules use the record's own names.
    pub fn is_own(&self) -> bool {
        self.dialect == Dialect::Record
    }

    /// Reads the `logsource` section.
    pub fn parse(node: &Node, problems: &mut Problems<'_>) -> Option<Logsource> {
        let Some(entries) = node.map() else {
            problems.add(Code::InvalidValue, node.place, format!("'logsource' is a map, not {}", node.kind()));
            return None;
        };
        let mut attribute = |name: &str| -> Option<(String, &Node)> {
            let value = node.get(name)?;
            match value.text() {
                Some(text) => Some((text.to_ascii_lowercase().replace(' ', "_"), value)),
                None => {
                    problems.add(Code::InvalidValue, value.place, format!("'{name}' is text, not {}", value.kind()));
                    None
                }
            }
        };
        let (product, service) = (attribute("product"), attribute("service"));
        for entry in entries {
            match entry.key.as_str() {
                "product" | "service" | "definition" => {}
                "category" => {
                    let message = "harrier has no records of a category; use product and service";
                    problems.add(Code::UnknownLogsource, entry.value.place, message);
                    return None;
                }
                // Custom attributes are allowed by Sigma; those near a known one are slips.
                other => {
                    if let Some(nearest) = super::report::nearest(other, ["product", "service", "definition"]) {
                        let message = format!("unknown key '{other}' in logsource");
                        problems.add_name(Code::UnknownKey, entry.place, message, other, [nearest]);
                    }
                }
            }
        }
        let products = ["m365", "azure"];
        let Some((product, at)) = product else {
            let help = "product: m365 is every record; README.md lists the services";
            problems.add_help(Code::UnknownLogsource, node.place, "the logsource names no product", help);
            return None;
        };
        if !products.contains(&product.as_str()) {
            let message = format!("harrier has no records of product '{product}', only of m365 and azure");
            problems.add_name(Code::UnknownLogsource, at.place, message, &product, products);
            return None;
        }
        let name = service.as_ref().map(|(name, _)| name.as_str());
        let found = SOURCES.iter().find(|(own, service, _)| *own == product && *service == name);
        if found.is_none() {
            let with_records =
                SOURCES.iter().filter(|(own, _, source)| *own == product && source.without_records.is_none());
            let services: Vec<&str> = with_records.filter_map(|(_, service, _)| *service).collect();
            let name = name.unwrap_or_default();
            let place = service.as_ref().map_or(node.place, |(_, at)| at.place);
            let message = format!("harrier has no records of {product}/{name}, only of {}", services.join(", "));
            problems.add_name(Code::UnknownLogsource, place, message, name, services);
        }
        found.map(|(.., logsource)| logsource.clone())
    }
}
