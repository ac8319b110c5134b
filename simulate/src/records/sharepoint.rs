//! Files in SharePoint and OneDrive (type 6) and sharing (type 14). No `ResultStatus`; user names in small letters.

use chrono::{DateTime, Utc};
use serde_json::json;

use super::{Draft, Opening, SHAREPOINT, SHAREPOINT_ONLINE_APP, timed_id};
use crate::Record;
use crate::dice::{Dice, fingerprint};
use crate::people::{Person, Session, Tenant};

const FOLDERS: [&str; 5] = ["Planning", "Reports", "Meetings", "Templates", "Drafts for review"];
const STEMS: [&str; 8] = ["budget", "minutes", "roadmap", "price list", "timesheet", "offer", "checklist", "summary"];
const EXTENSIONS: [&str; 4] = ["xlsx", "docx", "pptx", "pdf"];

/// Where a file lives.
struct Place {
    workload: &'static str,
    site_url: String,
    folder: String,
    file: String,
    extension: &'static str,
}

fn place(tenant: &Tenant, dice: &mut Dice, person: &Person) -> Place {
    let extension = *dice.pick(&EXTENSIONS);
    let file = format!("{} {}.{extension}", dice.pick(&STEMS), dice.between(1, 60));
    if dice.percent(45) {
        let owner = person.user_name.replace(['@', '.'], "_");
        Place {
            workload: "OneDrive",
            site_url: format!("https://{}-my.sharepoint.com/personal/{owner}", tenant.label),
            folder: "Documents".to_owned(),
            file,
            extension,
        }
    } else {
        let team = dice.pick(&["operations", "sales", "projects"]);
        Place {
            workload: "SharePoint",
            site_url: format!("https://{}.sharepoint.com/sites/{team}", tenant.label),
            folder: format!("Shared Documents/{}", dice.pick(&FOLDERS)),
            file,
            extension,
        }
    }
}

fn open(
    tenant: &Tenant,
    dice: &mut Dice,
    at: DateTime<Utc>,
    (person, session): (&Person, &Session),
    (operation, record_type): (&str, u32),
    place: &Place,
) -> Draft {
    let url = format!("{}/{}/{}", place.site_url, place.folder, place.file);
    let id = timed_id(dice, at);
    let mut draft = Draft::open(
        tenant,
        Opening {
            at,
            id,
            operation,
            record_type,
            result: None,
            user_key: &format!("i:0h.f|membership|{}@live.com", person.puid.to_lowercase()),
            user_type: 0,
            workload: place.workload,
            // Now and then the field is there and empty.
            client_ip: Some(if dice.percent(2) { "" } else { &session.ip }),
            object_id: Some(&url),
            user_id: &person.user_name.to_lowercase(),
        },
    );
    // Ids of site and list are functions of the site, of the item of its address: records of one file agree.
    let mut site = Dice::new(fingerprint(place.site_url.as_bytes()), "site", 0);
    let mut item = Dice::new(fingerprint(url.as_bytes()), "item", 0);
    draft.put(
        "AppAccessContext",
        json!({
            "AADSessionId": session.id,
            "ClientAppId": SHAREPOINT_ONLINE_APP,
            "ClientAppName": "Office 365 SharePoint Online",
            "CorrelationId": dice.guid(),
            "UniqueTokenId": format!("{}AA", dice.hex(20)),
        }),
    );
    draft.put("CorrelationId", dice.guid());
    draft.put("EventSource", "SharePoint");
    draft.put("ItemType", "File");
    draft.put("ListId", site.guid());
    draft.put("ListItemUniqueId", item.guid());
    draft.put("Site", site.guid());
    draft.put("UserAgent", session.browser.agent);
    draft.put("WebId", site.guid());
    draft.put("AuthenticationType", "OAuth");
    draft.put("BrowserName", session.browser.name);
    draft.put("IsManagedDevice", false);
    draft.put("GeoLocation", "EUR");
    draft.put("AssociatedAdminUnits", json!([]));
    draft
}

/// `FileAccessed`, `FileModified`, `FileDownloaded`, `FileUploaded`.
pub(crate) fn file(
    tenant: &Tenant,
    dice: &mut Dice,
    at: DateTime<Utc>,
    who: (&Person, &Session),
    operation: &str,
) -> Record {
    let place = place(tenant, dice, who.0);
    let mut draft = open(tenant, dice, at, who, (operation, 6), &place);
    draft.put("FileSizeBytes", dice.between(4_000, 4_000_000));
    draft.put("HighPriorityMediaProcessing", false);
    draft.put("SourceFileExtension", place.extension);
    // Here with a slash at the end and only the folder; in sharing records without slash and with the file.
    draft.put("SiteUrl", format!("{}/", place.site_url));
    draft.put("SourceFileName", place.file.clone());
    draft.put("SourceRelativeUrl", place.folder.clone());
    draft.close(SHAREPOINT)
}

/// A folder kept on a computer: one record for each file, and the computer is named.
pub(crate) fn synchronise(
    tenant: &Tenant,
    dice: &mut Dice,
    at: DateTime<Utc>,
    who: (&Person, &Session),
    machine: &str,
) -> Record {
    let place = place(tenant, dice, who.0);
    let mut draft = open(tenant, dice, at, who, ("FileSyncDownloadedFull", 6), &place);
    draft.put("UserAgent", "Microsoft SkyDriveSync 25.041.0302.0003 ship; Windows NT 10.0 (26100)");
    draft.put("MachineId", machine);
    draft.put("SourceFileExtension", place.extension);
    draft.put("SiteUrl", format!("{}/", place.site_url));
    draft.put("SourceFileName", place.file.clone());
    draft.put("SourceRelativeUrl", place.folder.clone());
    draft.close(SHAREPOINT)
}

/// A link that whoever has it can open: `AnonymousLinkCreated`, or `CompanyLinkCreated` for those of the tenant.
pub(crate) fn link(
    tenant: &Tenant,
    dice: &mut Dice,
    at: DateTime<Utc>,
    who: (&Person, &Session),
    operation: &str,
) -> Record {
    let place = place(tenant, dice, who.0);
    let mut draft = open(tenant, dice, at, who, (operation, 14), &place);
    draft.put("EventData", "<Type>View</Type>");
    draft.put("UniqueSharingId", dice.guid());
    draft.put("SourceFileExtension", place.extension);
    draft.put("SiteUrl", place.site_url.clone());
    draft.put("SourceFileName", place.file.clone());
    draft.put("SourceRelativeUrl", format!("{}/{}", place.folder, place.file));
    draft.close(SHAREPOINT)
}

/// A link made for colleagues. The pseudo-XML has tag names with spaces: an XML parser fails on it.
pub(crate) fn share(tenant: &Tenant, dice: &mut Dice, at: DateTime<Utc>, who: (&Person, &Session)) -> Record {
    let place = place(tenant, dice, who.0);
    let mut draft = open(tenant, dice, at, who, ("SharingSet", 14), &place);
    draft.put(
        "EventData",
        "<Permissions granted>System.LimitedEdit</Permissions granted><MembersCanShareApplied>False</MembersCanShareApplied>",
    );
    draft.put("SourceFileExtension", place.extension);
    draft.put("TargetUserOrGroupType", "SharePointGroup");
    draft.put("SiteUrl", place.site_url.clone());
    draft.put("SourceFileName", place.file.clone());
    draft.put("SourceRelativeUrl", format!("{}/{}", place.folder, place.file));
    draft.put("TargetUserOrGroupName", dice.hex(40).to_lowercase());
    draft.close(SHAREPOINT)
}
