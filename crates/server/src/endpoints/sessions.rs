//! Sessions of models that hold some: which are open, and where. Kept in memory, as their models keep theirs.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serving::{InvokeError, InvokeRequest, ModelAnswer, SessionPlace};
use time::PrimitiveDateTime;
use time::macros::format_description;

/// What a request says that opens a session.
pub const NEW_SESSION: &str = "NEW_SESSION";

/// From this many on, those that have expired are looked for.
const FEW: usize = 1024;

/// The open sessions of all endpoints.
#[derive(Debug, Default)]
pub struct Sessions {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By key of the endpoint in the data plane, and id.
    open: HashMap<String, HashMap<String, Session>>,
    count: usize,
    /// How many there may be before somebody looks for those that have expired.
    next_look: usize,
}

#[derive(Debug)]
struct Session {
    place: SessionPlace,
    /// Milliseconds since 1970.
    expires_at: i64,
}

impl Sessions {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request of a session to where that is held.
    ///
    /// # Errors
    /// [`InvokeError::NoSuchSession`].
    pub fn place(
        &self,
        plane_key: &str,
        request: &mut InvokeRequest,
        now_ms: impl FnOnce() -> i64,
    ) -> Result<(), InvokeError> {
        let Some(id) = request.session_id.as_deref().filter(|id| *id != NEW_SESSION) else { return Ok(()) };
        let now_ms = now_ms();
        let state = self.state();
        let open = state.open.get(plane_key).and_then(|sessions| sessions.get(id));
        let fits = |session: &&Session| {
            session.expires_at > now_ms
                && request.target_variant.as_ref().is_none_or(|variant| *variant == session.place.variant)
        };
        match open.filter(fits) {
            Some(session) => {
                request.session_place = Some(session.place.clone());
                Ok(())
            }
            None => Err(InvokeError::NoSuchSession { session: id.to_owned() }),
        }
    }

    /// Takes down what an answer says of sessions.
    ///
    /// # Errors
    /// A sentence for people, when that cannot be read.
    pub fn note(
        &self,
        plane_key: &str,
        answer: &ModelAnswer,
        now_ms: impl FnOnce() -> i64,
    ) -> Result<(), String> {
        if let Some(closed) = &answer.closed_session_id {
            self.state().close(plane_key, closed);
        }
        let (Some(opened), Some(place)) = (&answer.new_session_id, &answer.session_place) else {
            return Ok(());
        };
        let (id, expires_at) = read(opened).ok_or_else(|| {
            format!(
                "The model opened a session as {opened:?}, which is not of the form \"ID; Expires=2030-01-31T12:00:00Z\"."
            )
        })?;
        let now_ms = now_ms();
        let mut state = self.state();
        state.close(plane_key, id);
        if state.count >= state.next_look.max(FEW) {
            state.forget_expired(now_ms);
        }
        let session = Session { place: place.clone(), expires_at };
        state.open.entry(plane_key.to_owned()).or_default().insert(id.to_owned(), session);
        state.count += 1;
        Ok(())
    }

    /// Forgets the sessions of an endpoint.
    pub fn forget(&self, plane_key: &str) {
        let mut state = self.state();
        if let Some(gone) = state.open.remove(plane_key) {
            state.count -= gone.len();
        }
    }
}

impl State {
    fn close(&mut self, plane_key: &str, id: &str) {
        let Some(sessions) = self.open.get_mut(plane_key) else { return };
        if sessions.remove(id).is_some() {
            self.count -= 1;
        }
        if sessions.is_empty() {
            self.open.remove(plane_key);
        }
    }

    fn forget_expired(&mut self, now_ms: i64) {
        self.open.retain(|_, sessions| {
            sessions.retain(|_, session| session.expires_at > now_ms);
            !sessions.is_empty()
        });
        self.count = self.open.values().map(HashMap::len).sum();
        self.next_look = self.count * 2;
    }
}

/// Id and expiry, in milliseconds since 1970, of a session that was opened.
fn read(opened: &str) -> Option<(&str, i64)> {
    let (id, rest) = opened.split_once(';')?;
    let expires = rest.trim().strip_prefix("Expires=")?;
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    let expires = PrimitiveDateTime::parse(expires, format).ok()?.assume_utc();
    let is_id =
        !id.is_empty() && id.len() <= 256 && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    is_id.then_some((id, expires.unix_timestamp() * 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(id: &str, replica: &str) -> ModelAnswer {
        let place = SessionPlace { variant: "v".into(), replica: replica.into(), worker: Some(1) };
        ModelAnswer { new_session_id: Some(id.into()), session_place: Some(place), ..ModelAnswer::default() }
    }

    fn request(id: &str) -> InvokeRequest {
        InvokeRequest { session_id: Some(id.into()), ..InvokeRequest::default() }
    }

    fn found(sessions: &Sessions, endpoint: &str, id: &str, now_ms: i64) -> Option<String> {
        let mut request = request(id);
        sessions.place(endpoint, &mut request, || now_ms).ok()?;
        Some(request.session_place?.replica)
    }

    #[test]
    fn a_session_is_found_until_it_is_closed_or_expires() {
        let sessions = Sessions::default();
        sessions.note("a", &opened("one; Expires=2030-01-01T00:00:00Z", "r1"), || 0).unwrap();
        sessions.note("a", &opened("two; Expires=1970-01-01T00:00:05Z", "r2"), || 0).unwrap();
        assert_eq!(found(&sessions, "a", "one", 10_000).as_deref(), Some("r1"));
        assert_eq!(found(&sessions, "a", "two", 4_999).as_deref(), Some("r2"));
        assert_eq!(found(&sessions, "a", "two", 5_000), None);
        assert_eq!(found(&sessions, "b", "one", 0), None, "sessions belong to their endpoint");
        let mut elsewhere = InvokeRequest { target_variant: Some("w".into()), ..request("one") };
        assert!(sessions.place("a", &mut elsewhere, || 0).is_err());
        let closed = ModelAnswer { closed_session_id: Some("one".into()), ..ModelAnswer::default() };
        sessions.note("a", &closed, || 0).unwrap();
        assert_eq!(found(&sessions, "a", "one", 0), None);
        sessions.forget("a");
        assert_eq!(sessions.state().count, 0);
    }

    #[test]
    fn a_new_session_and_none_go_anywhere() {
        let sessions = Sessions::default();
        for mut request in [request(NEW_SESSION), InvokeRequest::default()] {
            sessions.place("a", &mut request, || 0).unwrap();
            assert_eq!(request.session_place, None);
        }
    }

    #[test]
    fn what_no_client_could_use_is_an_error() {
        let sessions = Sessions::default();
        for wrong in [
            "one",
            "one; Expires=tomorrow",
            "; Expires=2030-01-01T00:00:00Z",
            "a b; Expires=2030-01-01T00:00:00Z",
        ] {
            let error = sessions.note("a", &opened(wrong, "r"), || 0).unwrap_err();
            assert!(error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn what_has_expired_does_not_pile_up() {
        let sessions = Sessions::default();
        for number in 0..3 * FEW {
            let id = format!("s{number}; Expires=1970-01-01T00:00:01Z");
            sessions.note("a", &opened(&id, "r"), || 2_000).unwrap();
        }
        assert!(sessions.state().count <= 2 * FEW);
    }
}
