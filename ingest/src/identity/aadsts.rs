//! What the token endpoint says when it gives no token: its numbers, in plain words, with what mends each.
//!
//! The number decides, and never the text. `{tenant}`, `{client}` and the like in a command are filled in by whoever
//! shows it.

/// One number of the token endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Aadsts {
    pub number: i64,
    /// In plain words.
    pub meaning: &'static str,
    pub mend: Mend,
}

/// What mends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mend {
    NewSecret,
    UploadCertificate,
    FederatedCredential,
    TenantId,
    ClientId,
    Consent,
    EnableApplication,
    ServicePrincipal,
    ConditionalAccess,
    Clock,
    Cloud,
    /// Trouble at Microsoft's: nothing but waiting.
    Wait,
}

const fn entry(number: i64, mend: Mend, meaning: &'static str) -> Aadsts {
    Aadsts { number, meaning, mend }
}

/// Every number that concerns an application which signs in for itself.
pub const NUMBERS: &[Aadsts] = &[
    entry(7_000_215, Mend::NewSecret, "the client secret is wrong (its value is needed, not its id)"),
    entry(7_000_222, Mend::NewSecret, "the client secret has expired"),
    entry(7_000_218, Mend::NewSecret, "the application showed no credential"),
    entry(700_027, Mend::UploadCertificate, "the certificate is not one of the application's, or has expired"),
    entry(7_000_214, Mend::UploadCertificate, "the certificate has been revoked"),
    entry(7_000_277, Mend::UploadCertificate, "the certificate has been revoked"),
    entry(1_000_502, Mend::UploadCertificate, "the certificate has expired, or is not valid yet"),
    entry(700_024, Mend::Clock, "the assertion is not valid at this time: the clock of this machine is wrong"),
    entry(700_023, Mend::Cloud, "the assertion was made for another token endpoint"),
    entry(700_021, Mend::ClientId, "the assertion was made for another application"),
    entry(70_021, Mend::FederatedCredential, "no federated credential of the application fits the assertion"),
    entry(700_211, Mend::FederatedCredential, "no federated credential of the application names this issuer"),
    entry(700_212, Mend::FederatedCredential, "no federated credential of the application names this audience"),
    entry(700_213, Mend::FederatedCredential, "no federated credential of the application names this subject"),
    entry(700_016, Mend::ClientId, "the tenant knows no application with this client_id"),
    entry(7_000_112, Mend::EnableApplication, "the application is disabled in this tenant"),
    entry(7_000_229, Mend::ServicePrincipal, "the application was never added to this tenant"),
    entry(90_002, Mend::TenantId, "there is no tenant with this tenant_id in this cloud"),
    entry(900_023, Mend::TenantId, "tenant_id is neither a tenant's id nor its domain"),
    // Two numbers for one thing.
    entry(900_432, Mend::Cloud, "application and tenant are in different clouds"),
    entry(900_382, Mend::Cloud, "application and tenant are in different clouds"),
    entry(90_038, Mend::Cloud, "the tenant is in another cloud than this token endpoint"),
    entry(65_001, Mend::Consent, "no administrator has consented to the application's permissions"),
    entry(650_051, Mend::Consent, "the application asks for a permission that is invalid or out of date"),
    entry(500_011, Mend::ServicePrincipal, "the tenant does not know the API, or it belongs to another cloud"),
    entry(53_003, Mend::ConditionalAccess, "a Conditional Access policy keeps the application out"),
    entry(530_032, Mend::ConditionalAccess, "a security policy of the tenant keeps the application out"),
    entry(90_033, Mend::Wait, "Microsoft's sign-in has a passing fault"),
    entry(90_024, Mend::Wait, "Microsoft's sign-in has a passing fault"),
];

/// The first of these numbers that is known.
pub fn find(numbers: &[i64]) -> Option<&'static Aadsts> {
    numbers.iter().find_map(|number| NUMBERS.iter().find(|known| known.number == *number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_stands_once() {
        for (place, known) in NUMBERS.iter().enumerate() {
            assert!(NUMBERS[..place].iter().all(|other| other.number != known.number), "{}", known.number);
        }
        assert_eq!(find(&[1, 53_003]).map(|known| known.mend), Some(Mend::ConditionalAccess));
    }
}
