//! A change of the directory before it has a time and an actor.

use crate::people::{Browser, Person};
use crate::records::entra;

pub(crate) struct Edit<'a> {
    pub(super) operation: &'a str,
    pub(super) category: &'a str,
    pub(super) object_id: &'a str,
    pub(super) ip: Option<&'a str>,
    pub(super) agent: Option<&'a str>,
    pub(super) modified: Vec<(&'a str, String, &'a str)>,
    pub(super) target: Vec<(String, u8)>,
}

impl<'a> Edit<'a> {
    /// Until more is said, the target is the object, by name.
    pub(crate) fn new(operation: &'a str, category: &'a str, object_id: &'a str) -> Edit<'a> {
        let target = vec![(object_id.to_owned(), 5)];
        Edit { operation, category, object_id, ip: None, agent: None, modified: Vec::new(), target }
    }

    pub(crate) fn from(mut self, ip: &'a str) -> Edit<'a> {
        self.ip = Some(ip);
        self
    }

    pub(crate) fn with(mut self, browser: &'a Browser) -> Edit<'a> {
        self.agent = Some(browser.agent);
        self
    }

    pub(crate) fn on(mut self, person: &Person) -> Edit<'a> {
        self.target = entra::target("User", &person.object_id, &[(&person.user_name, 5), (&person.puid, 3)]);
        self
    }

    pub(crate) fn at(mut self, target: Vec<(String, u8)>) -> Edit<'a> {
        self.target = target;
        self
    }

    pub(crate) fn set(mut self, name: &'a str, value: &str) -> Edit<'a> {
        self.modified.push((name, value.to_owned(), ""));
        self
    }

    /// A role, in the four values that such a record names it by.
    pub(crate) fn role(self, name: &str, template: &str, known_as: &str) -> Edit<'a> {
        self.set("Role.ObjectID", &template.chars().rev().collect::<String>().replace('-', "0"))
            .set("Role.DisplayName", name)
            .set("Role.TemplateId", template)
            .set("Role.WellKnownObjectName", known_as)
    }
}
