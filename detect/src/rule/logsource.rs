//! Which records a rule speaks of, and how rules written for Azure's portals name what the unified audit log has.
//!
//! Sigma defines no fields for m365 and azure: rules use the names of the log source. For `m365` those are the
//! record's own. For `azure` there are three dialects of Microsoft's; [`translate`] maps what has a counterpart and
//! refuses the rest, because a rule that loads and can never match is worse than one that does not load.

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
}

/// Whose field names the rule uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// Every logsource harrier has records for: product, service, and which records those are.
const SOURCES: &[(&str, Option<&str>, Logsource)] = {
    const fn of(workloads: &'static [&'static str], sign_ins: Option<bool>, dialect: Dialect) -> Logsource {
        Logsource { workloads, sign_ins, dialect }
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
        let workload = event.text(field::WORKLOAD).unwrap_or_default();
        (self.workloads.is_empty() || self.workloads.iter().any(|own| own.eq_ignore_ascii_case(workload)))
            && self.sign_ins.is_none_or(|expected| expected == is_sign_in(event))
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
            let services: Vec<&str> =
                SOURCES.iter().filter(|(own, ..)| *own == product).filter_map(|(_, service, _)| *service).collect();
            let name = name.unwrap_or_default();
            let place = service.as_ref().map_or(node.place, |(_, at)| at.place);
            let message = format!("harrier has no records of {product}/{name}, only of {}", services.join(", "));
            problems.add_name(Code::UnknownLogsource, place, message, name, services);
        }
        found.map(|(.., logsource)| logsource.clone())
    }
}

/// How the values of a translated field differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    Same,
    /// Operation names for comparing: no final full stop, dashes as '-'.
    Operation,
    /// Portal words for success and failure.
    Outcome,
    /// `UserManagement` is `User`.
    Category,
    /// An alert that was raised.
    Raised,
}

/// What a name of a dialect means here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Translation {
    /// Nothing special: the name is the record's own.
    Own,
    Fields(&'static [&'static str], Values),
    /// Says again what an operation or error number beside it says already: left out there, `NoData` elsewhere.
    Implied,
    /// The unified audit log does not have it.
    NoData,
}

impl Translation {
    /// Whether it names what the record is about, so that texts describing it add nothing.
    pub fn decides(&self) -> bool {
        matches!(self, Translation::Fields(["operation_key"] | ["error_number"], _))
    }
}

/// Translates a field name. Portal names differ in case and in a `properties.` before them.
pub fn translate(dialect: Dialect, name: &str) -> Translation {
    match dialect {
        Dialect::Record => match name {
            // Flattened by the collectors that SigmaHQ's rules were written for.
            "RequestType" => Translation::Fields(&["RequestType", "ExtendedProperties.RequestType"], Values::Same),
            // Older names of the same things.
            "eventSource" => Translation::Fields(&["workload"], Values::Same),
            "eventName" => Translation::Fields(&["operation"], Values::Same),
            "status" => Translation::Fields(&["outcome"], Values::Outcome),
            _ => Translation::Own,
        },
        Dialect::Alert => match name {
            "eventSource" => Translation::Fields(&["workload"], Values::Same),
            "eventName" => Translation::Fields(&["Name"], Values::Same),
            "status" => Translation::Fields(&["operation"], Values::Raised),
            _ => Translation::Own,
        },
        Dialect::Entra => translate_entra(name),
    }
}

fn translate_entra(name: &str) -> Translation {
    let lower = name.to_ascii_lowercase();
    let bare = lower.strip_prefix("properties.").unwrap_or(&lower);
    let (fields, values): (&'static [&'static str], Values) = match bare {
        "message" | "operationname" | "activitydisplayname" | "activitytype" => (&["operation_key"], Values::Operation),
        "resulttype" | "status.errorcode" => (&["error_number"], Values::Same),
        "status" | "result" => (&["outcome"], Values::Outcome),
        "category" => (&["ExtendedProperties.extendedAuditEventCategory"], Values::Category),
        "useragent" => (&["user_agent"], Values::Same),
        "userprincipalname" | "username" | "initiatedby.user.userprincipalname" => (&["user_id"], Values::Same),
        "ipaddress" | "calleripaddress" | "initiatedby.user.ipaddress" => (&["client_ip"], Values::Same),
        "appid" => (&["app_id"], Values::Same),
        "targetresources" => (&["Target", "ModifiedProperties", "ObjectId"], Values::Same),
        "targetresources.modifiedproperties"
        | "targetresources.modifiedproperties.newvalue"
        | "targetresources.modifiedproperties.displayname" => (&["ModifiedProperties"], Values::Same),
        "additionaldetails" => (&["ExtendedProperties.additionalDetails"], Values::Same),
        "consentcontext.isadminconsent" => (&["ModifiedProperties.ConsentContext.IsAdminConsent"], Values::Same),
        "devicedetail.iscompliant" => {
            (&["DeviceProperties.IsCompliant", "DeviceProperties.IsCompliantAndManaged"], Values::Same)
        }
        "devicedetail.deviceid" => (&["DeviceProperties.Id"], Values::Same),
        "devicedetail.trusttype" => (&["DeviceProperties.TrustType"], Values::Same),
        "resultdescription" | "loggedbyservice" => return Translation::Implied,
        _ if PORTAL_ONLY.contains(&bare) => return Translation::NoData,
        _ => return Translation::Own,
    };
    Translation::Fields(fields, values)
}

/// Names of the portals, in lower case, for which the unified audit log has nothing.
const PORTAL_ONLY: &[&str] = &[
    "activitydetails",
    "additionaldetails.additionalinfo",
    "appdisplayname",
    "authenticationprocessingdetails",
    "authenticationrequirement",
    "clientapp",
    "clientappused",
    "conditionalaccesspolicies",
    "conditionalaccessstatus",
    "homeforest",
    "hometenantid",
    "initiatedby",
    "location",
    "location.countryorregion",
    "networklocationdetails",
    "resourcedisplayname",
    "resourceid",
    "resourcetenantid",
    "riskeventtype",
    "risklevel",
    "riskstate",
    "targetresources.type",
    "targetusername",
    "tokenissuertype",
];
