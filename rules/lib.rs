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
        "audit/audit_retention_shortened.yml",
        "audit/audit_switched_off.yml",
        "audit/feed_listing_fails.yml",
        "audit/feed_silent.yml",
        "audit/feed_subscription_disabled.yml",
        "audit/mailbox_audit_reduced.yml",
        "audit/mailbox_audit_switched_off.yml",
        "compliance/alert_policy_disabled.yml",
        "compliance/content_search_exported.yml",
        "compliance/content_search_purged.yml",
        "compliance/copied_to_removable_media.yml",
        "compliance/ediscovery_administrator_added.yml",
        "compliance/hold_on_mail_ended.yml",
        "compliance/loss_prevention_switched_off.yml",
        "defender/allow_list_extended.yml",
        "defender/link_opened_by_several.yml",
        "defender/mail_protection_removed.yml",
        "defender/mail_protection_weakened.yml",
        "defender/microsoft_alert.yml",
        "defender/phishing_clicked.yml",
        "defender/phishing_delivered.yml",
        "defender/phishing_from_inside.yml",
        "defender/phishing_released.yml",
        "defender/risk_detection.yml",
        "defender/sender_restricted.yml",
        "defender/warned_link_opened.yml",
        "entra/account_enabled_and_reset.yml",
        "entra/account_taken_over.yml",
        "entra/accounts_locked.yml",
        "entra/accounts_removed_at_once.yml",
        "entra/admin_role_granted.yml",
        "entra/anchor_changed.yml",
        "entra/application_agreed_to_by_several.yml",
        "entra/application_credential_added.yml",
        "entra/application_federated_credential.yml",
        "entra/application_known_from_theft.yml",
        "entra/application_owner_added.yml",
        "entra/application_permission_granted.yml",
        "entra/application_reply_address_changed.yml",
        "entra/authentication_policy_changed.yml",
        "entra/changed_after_password_reset.yml",
        "entra/conditional_access_changed.yml",
        "entra/conditional_access_weakened.yml",
        "entra/consent_for_everybody.yml",
        "entra/consent_protection_weakened.yml",
        "entra/consent_to_sensitive_scopes.yml",
        "entra/developer_tool_sign_in.yml",
        "entra/device_code_sign_in.yml",
        "entra/device_registered_from_new_network.yml",
        "entra/device_secrets_read.yml",
        "entra/directory_synchronisation_changed.yml",
        "entra/disabled_account_tried.yml",
        "entra/domain_added.yml",
        "entra/domain_trust_changed.yml",
        "entra/dormant_account_used.yml",
        "entra/failed_sign_in_spike.yml",
        "entra/global_administrator_granted.yml",
        "entra/guest_became_member.yml",
        "entra/guest_given_role.yml",
        "entra/guests_invited_in_series.yml",
        "entra/impossible_travel.yml",
        "entra/legacy_sign_in.yml",
        "entra/lookalike_application.yml",
        "entra/many_passwords_reset.yml",
        "entra/new_user_given_role.yml",
        "entra/partner_added.yml",
        "entra/password_guessed_from_many_networks.yml",
        "entra/password_reset_by_another.yml",
        "entra/password_right_elsewhere.yml",
        "entra/password_spray.yml",
        "entra/password_spray_by_client.yml",
        "entra/password_spray_distributed.yml",
        "entra/pim_weakened.yml",
        "entra/risky_consent.yml",
        "entra/role_assignable_group_created.yml",
        "entra/role_granted_to_application.yml",
        "entra/root_certificate_added.yml",
        "entra/second_factor_after_session_taken.yml",
        "entra/second_factor_changed_by_another.yml",
        "entra/second_factor_exception_for_addresses.yml",
        "entra/second_factor_fatigue.yml",
        "entra/second_factor_registered_from_new_network.yml",
        "entra/session_from_before_reset.yml",
        "entra/session_from_two_networks.yml",
        "entra/session_on_two_systems.yml",
        "entra/sign_in_after_spray.yml",
        "entra/sign_in_by_script.yml",
        "entra/sign_in_from_hosting_network.yml",
        "entra/sign_in_from_new_network.yml",
        "entra/temporary_access_pass_issued.yml",
        "entra/watched_again.yml",
        "exchange/access_given_in_series.yml",
        "exchange/connector_changed.yml",
        "exchange/consented_application_reads_mail.yml",
        "exchange/files_taken_and_mail_removed.yml",
        "exchange/folder_opened_to_everyone.yml",
        "exchange/forwarding_outside_allowed.yml",
        "exchange/full_access_granted.yml",
        "exchange/given_by_newcomer.yml",
        "exchange/inbox_rule_by_program.yml",
        "exchange/inbox_rule_changed_from_new_network.yml",
        "exchange/inbox_rule_forwards_outside.yml",
        "exchange/inbox_rule_hidden.yml",
        "exchange/inbox_rule_hides_mail.yml",
        "exchange/inbox_rule_made_and_removed.yml",
        "exchange/inbox_rule_of_an_intruder.yml",
        "exchange/inbox_rule_takes_everything.yml",
        "exchange/journal_rule_copies_outside.yml",
        "exchange/mail_burst.yml",
        "exchange/mail_burst_from_new_network.yml",
        "exchange/mail_deleted_spike.yml",
        "exchange/mail_read_by_application_new_to_tenant.yml",
        "exchange/mail_read_by_new_application.yml",
        "exchange/mail_read_from_new_network.yml",
        "exchange/mail_read_spike.yml",
        "exchange/mail_swept_away.yml",
        "exchange/mail_synced_by_new_client.yml",
        "exchange/mail_synced_from_new_network.yml",
        "exchange/mailbox_exported.yml",
        "exchange/mailbox_forwards_outside.yml",
        "exchange/mailbox_throttled.yml",
        "exchange/mobile_device_admitted.yml",
        "exchange/old_protocols_opened.yml",
        "exchange/powerful_exchange_role_granted.yml",
        "exchange/same_subject_sent.yml",
        "exchange/security_notice_deleted.yml",
        "exchange/send_as_granted.yml",
        "exchange/sent_as_unfamiliar_mailbox.yml",
        "exchange/several_mailboxes_forward_to_one.yml",
        "exchange/transport_rule_copies_outside.yml",
        "exchange/transport_rule_hides_mail.yml",
        "exchange/transport_rule_removed.yml",
        "flow/flow_takes_data_outside.yml",
        "sharepoint/anonymous_link_created.yml",
        "sharepoint/files_deleted_spike.yml",
        "sharepoint/files_downloaded_spike.yml",
        "sharepoint/files_read_by_script.yml",
        "sharepoint/files_renamed_spike.yml",
        "sharepoint/files_synced_to_new_computer.yml",
        "sharepoint/files_taken_and_removed.yml",
        "sharepoint/files_taken_from_new_network.yml",
        "sharepoint/links_in_bulk.yml",
        "sharepoint/malware_in_file.yml",
        "sharepoint/searched_for_secrets.yml",
        "sharepoint/shared_with_many.yml",
        "sharepoint/sharing_policy_loosened.yml",
        "sharepoint/site_admin_added.yml",
        "teams/help_desk_from_outside.yml",
        "teams/links_to_many_chats.yml",
        "teams/teams_deleted.yml",
        "teams/teams_opened_to_outside.yml",
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
