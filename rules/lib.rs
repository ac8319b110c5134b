//! The rule pack: content only. Each rule is one file, `<workload>/<behaviour>.yml`, and one line here; `README.md` is
//! the language. The texts are embedded, so that a binary alone detects.

macro_rules! pack {
    ($($file:literal),* $(,)?) => {
        &[$(($file, include_str!($file))),*]
    };
}

/// Path in the pack and text, in the order of paths.
pub fn pack() -> &'static [(&'static str, &'static str)] {
    pack![
        "audit/audit_switched_off.yml",
        "audit/feed_listing_fails.yml",
        "audit/feed_silent.yml",
        "audit/feed_subscription_disabled.yml",
        "audit/mailbox_audit_switched_off.yml",
        "defender/warned_link_opened.yml",
        "entra/admin_role_granted.yml",
        "entra/application_credential_added.yml",
        "entra/application_permission_granted.yml",
        "entra/consent_for_everybody.yml",
        "entra/consent_to_sensitive_scopes.yml",
        "entra/disabled_account_tried.yml",
        "entra/global_administrator_granted.yml",
        "entra/lookalike_application.yml",
        "entra/password_reset_by_another.yml",
        "entra/password_spray.yml",
        "entra/risky_consent.yml",
        "entra/role_assignable_group_created.yml",
        "entra/second_factor_changed_by_another.yml",
        "entra/session_from_two_networks.yml",
        "entra/sign_in_after_spray.yml",
        "entra/sign_in_from_new_network.yml",
        "exchange/folder_opened_to_everyone.yml",
        "exchange/full_access_granted.yml",
        "exchange/inbox_rule_changed_from_new_network.yml",
        "exchange/inbox_rule_forwards_outside.yml",
        "exchange/inbox_rule_hides_mail.yml",
        "exchange/inbox_rule_of_an_intruder.yml",
        "exchange/mail_burst.yml",
        "exchange/mail_deleted_spike.yml",
        "exchange/mail_read_by_new_application.yml",
        "exchange/mail_read_spike.yml",
        "exchange/mail_synced_from_new_network.yml",
        "exchange/mailbox_forwards_outside.yml",
        "exchange/mailbox_throttled.yml",
        "exchange/send_as_granted.yml",
        "exchange/transport_rule_copies_outside.yml",
        "exchange/transport_rule_hides_mail.yml",
        "sharepoint/anonymous_link_created.yml",
    ]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::pack;

    #[test]
    fn every_file_of_the_folders_is_in_the_list() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut found = Vec::new();
        for folder in std::fs::read_dir(root).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_dir()) {
            for file in std::fs::read_dir(folder.path()).unwrap() {
                let path = file.unwrap().path();
                if path.extension().is_some_and(|extension| extension == "yml" || extension == "yaml") {
                    found.push(path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/"));
                }
            }
        }
        found.sort();
        let listed: Vec<&str> = pack().iter().map(|(file, _)| *file).collect();
        assert_eq!(listed, found);
    }
}
