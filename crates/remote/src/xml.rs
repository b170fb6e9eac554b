//! The little XML that S3 answers with, as a tree.

use quick_xml::Reader;
use quick_xml::events::Event;

/// Most nested elements; answers of S3 have a handful.
const DEEPEST: usize = 16;

/// An element: its text, and the elements in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// Its name, without a namespace.
    pub name: String,
    text: String,
    children: Vec<Element>,
}

impl Element {
    /// The elements of this name in it.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The text of the first element of this name in it; empty when there is none.
    pub fn text_of(&self, name: &str) -> String {
        self.all(name).next().map(|child| child.text.clone()).unwrap_or_default()
    }
}

/// The root of a document; `None` for what is none.
pub fn parse(document: &str) -> Option<Element> {
    let mut reader = Reader::from_str(document);
    let mut open: Vec<Element> = vec![Element::default()];
    loop {
        match reader.read_event().ok()? {
            Event::Start(start) => {
                if open.len() > DEEPEST {
                    return None;
                }
                let name = String::from_utf8(start.local_name().as_ref().to_vec()).ok()?;
                open.push(Element { name, ..Element::default() });
            }
            Event::Empty(empty) => {
                let name = String::from_utf8(empty.local_name().as_ref().to_vec()).ok()?;
                open.last_mut()?.children.push(Element { name, ..Element::default() });
            }
            Event::End(_) => {
                let closed = open.pop()?;
                open.last_mut()?.children.push(closed);
            }
            Event::Text(text) => open.last_mut()?.text.push_str(&text.decode().ok()?),
            Event::CData(text) => open.last_mut()?.text.push_str(&text.decode().ok()?),
            Event::GeneralRef(reference) => {
                let character = reference.resolve_char_ref().ok()?.map(String::from);
                let named = || {
                    let name = reference.decode().ok()?;
                    quick_xml::escape::resolve_predefined_entity(&name).map(str::to_owned)
                };
                open.last_mut()?.text.push_str(&character.or_else(named)?);
            }
            Event::Eof => break,
            _ => {}
        }
    }
    let mut document = open.pop().filter(|_| open.is_empty())?;
    document.children.pop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_become_trees() {
        let text = "<?xml version=\"1.0\"?>\n<A xmlns=\"http://x\"> <B><K>a&amp;b&#x20;c</K><E>&quot;tag&quot;</E></B><B/><C>true</C></A>";
        let root = parse(text).unwrap();
        assert_eq!(root.name, "A");
        let first = root.all("B").next().unwrap();
        assert_eq!((first.text_of("K"), first.text_of("E")), ("a&b c".into(), "\"tag\"".into()));
        assert_eq!(
            (root.all("B").count(), root.text_of("C"), root.text_of("D")),
            (2, "true".into(), String::new())
        );
    }

    #[test]
    fn what_is_no_answer_is_none() {
        for text in ["", "<A>", "<A></B>", "no", "<A>&unknown;</A>", &"<A>".repeat(1000)] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
