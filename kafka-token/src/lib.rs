//! Gives a client of librdkafka a token to sign in with.
//!
//! A client asks for one by an event, which is answered by whoever polls the client. Nobody can poll an admin client of
//! rdkafka, so it would wait for ever. librdkafka takes a token unasked as well, but rdkafka does not offer that call.
//! This crate is that call and nothing else; it is apart from the others because none of them may hold `unsafe`.

use std::ffi::{CString, c_char};

use rdkafka::bindings::{rd_kafka_oauthbearer_set_token, rd_kafka_resp_err_t};
use rdkafka::client::{Client, ClientContext, OAuthToken};

/// Room for what librdkafka has against a token.
const REASON_BYTES: usize = 512;

/// Signs the client in with this token from now on, on connections that are yet to be made. Fails with librdkafka's
/// reason where it does not take the token: one that has expired, or holds a character that tokens do not have.
#[allow(unsafe_code)]
pub fn set_token<C: ClientContext>(client: &Client<C>, token: &OAuthToken) -> Result<(), String> {
    let text = |text: &str| CString::new(text).map_err(|_| "it holds a zero byte".to_owned());
    let (value, principal) = (text(&token.token)?, text(&token.principal_name)?);
    let mut reason = [0_u8; REASON_BYTES];
    // SAFETY: the client lives as long as the borrow; both texts end with a zero and are copied by librdkafka; there are
    // no extensions, and librdkafka writes at most as many bytes of the reason as it is told.
    let code = unsafe {
        rd_kafka_oauthbearer_set_token(
            client.native_ptr(),
            value.as_ptr(),
            token.lifetime_ms,
            principal.as_ptr(),
            std::ptr::null_mut(),
            0,
            reason.as_mut_ptr().cast::<c_char>(),
            reason.len(),
        )
    };
    if code == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Ok(());
    }
    let length = reason.iter().position(|byte| *byte == 0).unwrap_or(0);
    Err(String::from_utf8_lossy(&reason[..length]).into_owned())
}
