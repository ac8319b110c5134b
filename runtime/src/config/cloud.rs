//! Microsoft's clouds and the hosts of each.

/// A Microsoft cloud.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Cloud {
    #[default]
    Global,
    Gcc,
    GccHigh,
    Dod,
    China,
}

/// Where a cloud's APIs are. Each can be set otherwise in `[tenant.endpoints]`: some are documented nowhere, and a
/// proxy or a fake tenant has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hosts {
    pub login: &'static str,
    /// Also the OAuth resource. `None` where no root is documented.
    pub management: Option<&'static str>,
    pub graph: &'static str,
    pub exchange: &'static str,
    pub reporting: &'static str,
}

impl Cloud {
    pub const ALL: [Cloud; 5] = [Cloud::Global, Cloud::Gcc, Cloud::GccHigh, Cloud::Dod, Cloud::China];

    pub fn as_str(self) -> &'static str {
        match self {
            Cloud::Global => "global",
            Cloud::Gcc => "gcc",
            Cloud::GccHigh => "gcc-high",
            Cloud::Dod => "dod",
            Cloud::China => "china",
        }
    }

    /// Whether Graph searches the audit log there. Documented as not available in the national clouds.
    pub fn has_audit_search(self) -> bool {
        matches!(self, Cloud::Global | Cloud::Gcc)
    }

    pub fn hosts(self) -> Hosts {
        match self {
            Cloud::Global => Hosts {
                login: "https://login.microsoftonline.com",
                management: Some("https://manage.office.com"),
                graph: "https://graph.microsoft.com",
                exchange: "https://outlook.office365.com",
                reporting: "https://reports.office365.com",
            },
            // GCC tenants live in the worldwide Entra cloud; only the management root is their own.
            Cloud::Gcc => Hosts { management: Some("https://manage-gcc.office.com"), ..Cloud::Global.hosts() },
            // The reporting hosts of the national clouds are documented nowhere: reporting is asked of Exchange's host.
            Cloud::GccHigh => Hosts {
                login: "https://login.microsoftonline.us",
                management: Some("https://manage.office365.us"),
                graph: "https://graph.microsoft.us",
                exchange: "https://outlook.office365.us",
                reporting: "https://outlook.office365.us",
            },
            Cloud::Dod => Hosts {
                login: "https://login.microsoftonline.us",
                management: Some("https://manage.protection.apps.mil"),
                graph: "https://dod-graph.microsoft.us",
                exchange: "https://webmail.apps.mil",
                reporting: "https://webmail.apps.mil",
            },
            Cloud::China => Hosts {
                login: "https://login.chinacloudapi.cn",
                management: None,
                graph: "https://microsoftgraph.chinacloudapi.cn",
                exchange: "https://partner.outlook.cn",
                reporting: "https://partner.outlook.cn",
            },
        }
    }
}
