//! Which field names make sense: those of `FIELDS`, and the top-level names Microsoft writes into records.
//!
//! Records are open-ended, so an unknown name is accepted; one that is nearly a known name is taken for a slip,
//! because a misspelt field never matches and never complains.

use schemas::field::{self, FIELDS, FieldId};

use super::condition::Occurs;
use super::report::{Code, Problems, distance, nearest};
use super::yaml::Place;

/// Top-level names of records of all workloads, from Microsoft's schema pages and from real records.
#[rustfmt::skip]
const RECORD_NAMES: &[&str] = &[
    "AADGroupId", "AadAppId", "Action", "Actions", "ActionType", "Actor", "ActorContextId", "ActorIP",
    "ActorInfoString", "ActorIpAddress", "ActorUserAgent", "AddOnGuid", "AddOnName", "AddOnType",
    "AdditionalActionsAndResults", "AffectedItems", "AlertEntityId", "AlertId", "AlertLinks", "AlertType",
    "AppAccessContext", "AppId", "AppName", "AppPoolName", "Application", "ApplicationDisplayName", "ApplicationId",
    "ApplicationName", "AssertingApplicationId", "AssociatedAdminUnits", "AttachmentData", "AttachmentId", "Audit",
    "AuthDetails", "AuthType", "AuthenticationType", "AzureActiveDirectoryEventType", "BrowserName", "BrowserVersion",
    "CaseId", "CaseName", "Category", "ChannelGuid", "ChannelName", "ChannelType", "ChatName", "ChatThreadId", "Client",
    "ClientAppId", "ClientAppName", "ClientApplication", "ClientIP", "ClientIPAddress", "ClientInfoString",
    "ClientMachineName", "ClientProcessName", "ClientRequestId", "ClientVersion", "CloudInstanceName", "CmdletVersion",
    "Comments", "CommunicationType", "Connectors", "CorrelationId", "CreationDate", "CreationTime",
    "CrossMailboxOperation", "CrossMailboxOperations", "CustomUniqueId", "Data", "DataSources", "DataType",
    "DatabaseType", "DeepLinkUrl", "DeeplinkURL", "DeliveryAction", "DestFolder", "DestMailboxGuid",
    "DestMailboxOwnerUPN", "DestinationFileExtension", "DestinationFileName", "DestinationRelativeUrl",
    "DetectionMethod", "DetectionType", "DeviceDisplayName", "DeviceId", "DeviceProperties", "Directionality",
    "DoNotDistributeEvent", "EffectiveOrganization", "EndTime", "EndpointMetaData", "EntityType", "ErrorCode",
    "ErrorNumber", "Event", "EventData", "EventDeepLink", "EventId", "EventSource", "EventValue", "ExceptionInfo",
    "ExchangeMetaData", "ExportName", "ExtendedProperties", "ExternalAccess", "ExternalUserTenantId", "ExtraProperties",
    "FileData", "FileSizeBytes", "FlowConnectorNames", "FlowDetailsUrl", "Folder", "Folders", "GeoLocation",
    "HighPriorityMediaProcessing", "HostAppId", "HostedContents", "Id", "Identity", "ImplicitShare", "IncidentId",
    "InterSystemsId", "InternalLogonType", "InternetMessageId", "IntraSystemId", "IntraSystemsId", "InvestigationId",
    "InvestigationName", "InvestigationStatus", "InvestigationType", "Invitee", "IsManagedDevice", "IsWorkflow", "Item",
    "ItemIds", "ItemName", "ItemNames", "ItemType", "JobId", "LastModifiedDate", "LastUpdateTimeUtc",
    "LatestDeliveryLocation", "ListBaseType", "ListId", "ListItemUniqueId", "ListServerTemplate", "ListTitle",
    "ListUrl", "LogonError", "LogonType", "LogonUserDisplayName", "LogonUserSid", "MachineDomainInfo", "MachineId",
    "MailboxGuid", "MailboxOwnerMasterAccountSid", "MailboxOwnerSid", "MailboxOwnerUPN", "Members", "MessageId",
    "MessageSizeInBytes", "MessageTime", "MessageURLs", "Messages", "ModifiedObjectResolvedName", "ModifiedProperties",
    "Name", "NetworkMessageId", "NewValue", "NonPIIParameters", "NonPiiParameters", "ObjectId", "OldValue", "Operation",
    "OperationCount", "OperationProperties", "OrganizationId", "OrganizationName", "OriginalDeliveryLocation",
    "OriginatingServer", "P1Sender", "P2Sender", "Parameters", "ParticipantInfo", "PhishConfidenceLevel", "Platform",
    "Policy", "PolicyAction", "PolicyDetails", "PolicyId", "QueryFiles", "QueryId", "QueryText", "Reason", "Recipients",
    "RecordNumber", "RecordType", "RelativeUrl", "ReleaseTo", "RequestId", "RequestSource", "RequestType", "ResourceId",
    "ResourceURL", "ResultCount", "ResultStatus", "SaveToSentItems", "Scope", "SecurityComplianceCenterEventType",
    "SendAsUserMailboxGuid", "SendAsUserSmtp", "SendOnBehalfOfUserMailboxGuid", "SendOnBehalfOfUserSmtp", "SenderIp",
    "SensitiveInfoDetectionIsIncluded", "SensitivityLabelId", "SessionId", "Settings", "Severity", "SharePointMetaData",
    "SharingType", "Site", "SiteUrl", "Source", "SourceFileExtension", "SourceFileName", "SourceId", "SourceName",
    "SourceRelativeUrl", "SourceWorkload", "StartTime", "StartTimeUtc", "Status", "Subject", "SubscriptionId",
    "SupportTicketId", "SystemOverrides", "TabType", "Target", "TargetContextId", "TargetUserOrGroupName",
    "TargetUserOrGroupType", "TeamGuid", "TeamName", "TemplateTypeId", "ThreatsAndDetectionTech", "TimeOfClick",
    "TokenObjectId", "TokenTenantId", "TokenType", "URL", "URLClickAction", "UniqueSharingId", "UniqueTokenIdentifier",
    "UserAgent", "UserCancelled", "UserId", "UserIp", "UserKey", "UserServicePlan", "UserSharedWith", "UserType",
    "Verdict", "Version", "WebId", "Workload", "recipientCount", "recipientList",
];

/// Whether records can have a field of that name.
pub fn occurs(name: &str) -> Occurs {
    if field::by_name(name).is_some() {
        return Occurs::Normalised;
    }
    let first = name.split(['.', '[']).next().unwrap_or(name);
    if RECORD_NAMES.contains(&first) { Occurs::Recorded } else { Occurs::Unheard }
}

/// How far a slip may be from the name that was meant.
const SLIP_MAX: usize = 2;

/// Checks a name; reports it if it is a slip. Returns the field of `FIELDS` it names, if any.
pub fn check(name: &str, place: Place, problems: &mut Problems<'_>) -> Option<FieldId> {
    if let Some(id) = field::by_name(name) {
        return Some(id);
    }
    let ours = || FIELDS.iter().map(|field| field.name).filter(|name| *name != "raw");
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.chars().all(is_word) {
        let slip = ours().any(|own| distance(own, name) <= SLIP_MAX.min(name.len() / 3));
        if name.contains('_') || slip || name == "raw" {
            let message = format!("'{name}' is not a field");
            problems.add_name(Code::UnknownField, place, message, name, ours());
        }
        return None;
    }
    let mut rest = name;
    while let Some((_, tail)) = rest.split_once('[') {
        let selector =
            tail.split_once(']').filter(|(inner, _)| inner.split_once('=').is_some_and(|(key, _)| !key.is_empty()));
        let Some((_, after)) = selector.filter(|(_, after)| after.is_empty() || after.starts_with('.')) else {
            let message = "members of a list are selected as 'Target[Type=2].ID', by one key and its value";
            problems.add(Code::UnknownField, place, message);
            return None;
        };
        rest = after;
    }
    let first = name.split(['.', '[']).next().unwrap_or(name);
    if first.trim() != first || first.is_empty() {
        problems.add(Code::UnknownField, place, format!("'{}' is not a field name", name.escape_debug()));
        return None;
    }
    if RECORD_NAMES.contains(&first) {
        return None;
    }
    let limit = SLIP_MAX.min(first.chars().count() / 3);
    if RECORD_NAMES.iter().any(|own| distance(own, first) <= limit) {
        let message = format!("'{first}' is not a field of Microsoft's records");
        let suggestion = nearest(first, RECORD_NAMES.iter().copied());
        problems.add_name(Code::UnknownField, place, message, first, suggestion);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::report::RuleErrors;

    #[test]
    fn slips_are_found_and_the_unknown_is_accepted() {
        for (name, nearest) in [
            ("client_ip", None),
            ("clinet_ip", Some("client_ip")),
            ("opperation", Some("operation")),
            ("status", None),
            ("Paramters.ForwardTo", Some("Parameters")),
            ("parameters.ForwardTo", Some("Parameters")),
            ("CopilotEventData.AppHost", None),
            ("Audit", None),
            ("Item.ParentFolder.Path", None),
        ] {
            let mut errors = RuleErrors::default();
            check(name, Place::default(), &mut Problems::new("f", "", &mut errors));
            assert_eq!(errors.reports().first().and_then(|report| report.nearest.as_deref()), nearest, "{name}");
            assert_eq!(errors.is_empty(), nearest.is_none(), "{name}");
        }
    }

    #[test]
    fn the_list_of_names_is_free_of_repetition() {
        let mut names = RECORD_NAMES.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), RECORD_NAMES.len());
    }
}
