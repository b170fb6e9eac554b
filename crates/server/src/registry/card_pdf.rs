//! A model card as PDF: A4 pages of wrapped text and tables in Helvetica, which every reader of PDF has.
//!
//! The font has the characters of Windows-1252; the last line of the document says so when others had to be replaced.

use pdf_writer::{Content, Finish, Name, Pdf, Rect, Ref, Str, TextStr};

use super::card::Block;

/// Size of a page, in points of 1/72 inch: A4.
const PAGE: (f32, f32) = (595.0, 842.0);
/// Space around the text of a page.
const MARGIN: f32 = 56.0;
/// Height of a line over the size of its font.
const LEADING: f32 = 1.35;
/// Size of plain text.
const TEXT_SIZE: f32 = 10.0;
/// Space between the columns of a table.
const GUTTER: f32 = 8.0;

const PLAIN: Name<'static> = Name(b"F1");
const BOLD: Name<'static> = Name(b"F2");

/// Widths of the characters from space to tilde in thousandths of the font's size, as Adobe publishes them for Helvetica.
const WIDTHS: [u16; 95] = [
    278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278, 556, 556, 556, 556, 556,
    556, 556, 556, 556, 556, 278, 278, 584, 584, 584, 556, 1015, 667, 667, 722, 722, 667, 611, 778, 722, 278,
    500, 667, 556, 833, 722, 778, 667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469,
    556, 333, 556, 556, 500, 556, 556, 278, 556, 556, 222, 222, 500, 222, 833, 556, 556, 556, 556, 333, 500,
    278, 556, 500, 722, 500, 500, 500, 334, 260, 334, 584,
];

/// Bold letters are this much wider than plain ones, taken generously.
const BOLD_WIDTH: f32 = 1.1;

/// The document as a PDF file.
pub fn pdf(blocks: &[Block]) -> Vec<u8> {
    let mut layout = Layout::new();
    for block in blocks {
        match block {
            Block::Heading(level, text) => layout.heading(*level, text),
            Block::Field(label, text) => layout.field(label, text),
            Block::Table(headings, rows) => layout.table(headings, rows),
        }
    }
    if layout.replaced {
        layout.gap(TEXT_SIZE);
        let note = "Characters that this document's font does not have are shown as ?; the HTML page beside it has them.";
        layout.paragraph(note, PLAIN, 8.0, 0.0);
    }
    let title = match blocks.first() {
        Some(Block::Heading(_, title)) => title.as_str(),
        _ => "Model card",
    };
    layout.finish(title)
}

/// Pages as they fill up.
struct Layout {
    pages: Vec<Content>,
    /// Height of the next line's top over the bottom of the page.
    top: f32,
    replaced: bool,
}

impl Layout {
    fn new() -> Layout {
        Layout { pages: vec![Content::new()], top: PAGE.1 - MARGIN, replaced: false }
    }

    fn gap(&mut self, height: f32) {
        self.top -= height;
    }

    /// Makes room for so much height, on a new page where it must be.
    fn need(&mut self, height: f32) {
        if self.top - height < MARGIN {
            self.pages.push(Content::new());
            self.top = PAGE.1 - MARGIN;
        }
    }

    fn show(&mut self, bytes: &[u8], font: Name<'_>, size: f32, x: f32, baseline: f32) {
        if let Some(page) = self.pages.last_mut() {
            page.begin_text();
            page.set_font(font, size);
            page.next_line(x, baseline);
            page.show(Str(bytes));
            page.end_text();
        }
    }

    fn encode(&mut self, text: &str) -> Vec<u8> {
        let bytes = text.chars().map(|letter| {
            windows_1252(letter).unwrap_or_else(|| {
                self.replaced = true;
                b'?'
            })
        });
        bytes.collect()
    }

    fn paragraph(&mut self, text: &str, font: Name<'_>, size: f32, indent: f32) {
        let width = PAGE.0 - 2.0 * MARGIN - indent;
        for line in text.lines() {
            let bytes = self.encode(line);
            for line in wrap(&bytes, width, size, is_bold(font)) {
                self.need(size * LEADING);
                self.show(&line, font, size, MARGIN + indent, self.top - size);
                self.top -= size * LEADING;
            }
        }
    }

    fn heading(&mut self, level: u8, text: &str) {
        let size = match level {
            1 => 20.0,
            2 => 15.0,
            3 => 12.5,
            _ => 11.0,
        };
        self.gap(size * 0.6);
        // A heading does not stand alone at the foot of a page.
        self.need(size * LEADING + 3.0 * TEXT_SIZE * LEADING);
        self.paragraph(text, BOLD, size, 0.0);
        self.gap(size * 0.2);
    }

    fn field(&mut self, label: &str, text: &str) {
        self.need(2.0 * TEXT_SIZE * LEADING);
        self.paragraph(label, BOLD, TEXT_SIZE, 0.0);
        self.paragraph(text, PLAIN, TEXT_SIZE, 12.0);
        self.gap(3.0);
    }

    fn table(&mut self, headings: &[String], rows: &[Vec<String>]) {
        let columns = headings.len().max(1) as f32;
        let width = (PAGE.0 - 2.0 * MARGIN - GUTTER * (columns - 1.0)) / columns;
        self.row(headings, BOLD, width);
        for row in rows {
            self.row(row, PLAIN, width);
        }
        self.gap(TEXT_SIZE * 0.6);
    }

    /// Lines of all cells side by side; a row that is longer than the page goes on overleaf.
    fn row(&mut self, cells: &[String], font: Name<'_>, width: f32) {
        let cells: Vec<Vec<Vec<u8>>> = cells
            .iter()
            .map(|cell| {
                let bytes = self.encode(&cell.replace('\n', " "));
                wrap(&bytes, width, TEXT_SIZE, is_bold(font))
            })
            .collect();
        let lines = cells.iter().map(Vec::len).max().unwrap_or(0);
        for number in 0..lines {
            self.need(TEXT_SIZE * LEADING);
            for (column, cell) in cells.iter().enumerate() {
                if let Some(line) = cell.get(number) {
                    let x = MARGIN + column as f32 * (width + GUTTER);
                    self.show(line, font, TEXT_SIZE, x, self.top - TEXT_SIZE);
                }
            }
            self.top -= TEXT_SIZE * LEADING;
        }
        let (from, to, y) = (MARGIN, PAGE.0 - MARGIN, self.top);
        if let Some(page) = self.pages.last_mut() {
            page.set_line_width(0.5).set_stroke_gray(0.7);
            page.move_to(from, y).line_to(to, y).stroke();
        }
        self.gap(2.0);
    }

    fn finish(mut self, title: &str) -> Vec<u8> {
        let count = self.pages.len();
        let heading = self.encode(title);
        let mut pdf = Pdf::new();
        let (catalog, tree, info, plain, bold) =
            (Ref::new(1), Ref::new(2), Ref::new(3), Ref::new(4), Ref::new(5));
        let page_id = |number: usize| Ref::new(6 + 2 * number as i32);
        pdf.catalog(catalog).pages(tree);
        pdf.document_info(info).title(TextStr(title)).producer(TextStr("Modelyard"));
        pdf.pages(tree).kids((0..count).map(page_id)).count(count as i32);
        for (id, name) in [(plain, &b"Helvetica"[..]), (bold, b"Helvetica-Bold")] {
            let mut font = pdf.type1_font(id);
            font.base_font(Name(name)).encoding_predefined(Name(b"WinAnsiEncoding"));
        }
        for (number, mut content) in self.pages.into_iter().enumerate() {
            content.begin_text();
            content.set_font(PLAIN, 8.0);
            content.next_line(MARGIN, MARGIN / 2.0);
            let foot = [&heading[..], format!("  -  page {} of {count}", number + 1).as_bytes()].concat();
            content.show(Str(&foot));
            content.end_text();
            let content_id = Ref::new(page_id(number).get() + 1);
            let mut page = pdf.page(page_id(number));
            page.media_box(Rect::new(0.0, 0.0, PAGE.0, PAGE.1)).parent(tree).contents(content_id);
            page.resources().fonts().pair(PLAIN, plain).pair(BOLD, bold);
            page.finish();
            pdf.stream(content_id, &content.finish());
        }
        pdf.finish()
    }
}

fn is_bold(font: Name<'_>) -> bool {
    font == BOLD
}

/// Width of encoded text in points.
fn width_of(bytes: &[u8], size: f32, is_bold: bool) -> f32 {
    let units: f32 = bytes
        .iter()
        .map(|byte| match byte {
            32..=126 => f32::from(WIDTHS[usize::from(byte - 32)]),
            // Accented capitals are as wide as the widest of the common ones, all else as a digit.
            0x80..=0xdf => 778.0,
            _ => 556.0,
        })
        .sum();
    units / 1000.0 * size * if is_bold { BOLD_WIDTH } else { 1.0 }
}

/// Breaks text at spaces, and within words that are longer than a line.
fn wrap(bytes: &[u8], width: f32, size: f32, is_bold: bool) -> Vec<Vec<u8>> {
    let fits = |line: &[u8]| width_of(line, size, is_bold) <= width;
    let (mut lines, mut line): (Vec<Vec<u8>>, Vec<u8>) = (Vec::new(), Vec::new());
    for word in bytes.split(|byte| *byte == b' ') {
        let joined = if line.is_empty() { word.to_vec() } else { [&line[..], b" ", word].concat() };
        if fits(&joined) {
            line = joined;
            continue;
        }
        if !line.is_empty() {
            lines.push(std::mem::take(&mut line));
        }
        for byte in word {
            line.push(*byte);
            if !fits(&line) && line.len() > 1 {
                line.pop();
                lines.push(std::mem::replace(&mut line, vec![*byte]));
            }
        }
    }
    lines.push(line);
    lines
}

/// The byte of a character in Windows-1252; control characters become spaces.
fn windows_1252(letter: char) -> Option<u8> {
    const MORE: [(char, u8); 14] = [
        ('€', 0x80),
        ('…', 0x85),
        ('‰', 0x89),
        ('Œ', 0x8c),
        ('‘', 0x91),
        ('’', 0x92),
        ('“', 0x93),
        ('”', 0x94),
        ('•', 0x95),
        ('–', 0x96),
        ('—', 0x97),
        ('™', 0x99),
        ('œ', 0x9c),
        ('Ÿ', 0x9f),
    ];
    match u32::from(letter) {
        0..32 | 127 => Some(b' '),
        code @ (32..127 | 0xa0..=0xff) => u8::try_from(code).ok(),
        _ => MORE.iter().find(|(known, _)| *known == letter).map(|(_, byte)| *byte),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_at_spaces_and_within_long_words() {
        let lines = wrap(b"aaa bbb ccc", width_of(b"aaa bbb", 10.0, false), 10.0, false);
        assert_eq!(lines, [b"aaa bbb".to_vec(), b"ccc".to_vec()]);
        let lines = wrap(b"aaaaa", width_of(b"aa", 10.0, false), 10.0, false);
        assert_eq!(lines, [b"aa".to_vec(), b"aa".to_vec(), b"a".to_vec()]);
        assert_eq!(wrap(b"", 10.0, 10.0, false), [Vec::<u8>::new()]);
        assert_eq!(wrap(b"ab", 0.0, 10.0, false).len(), 2, "a line takes one letter at least");
    }

    #[test]
    fn long_cards_take_many_pages_and_say_what_is_missing() {
        let rows = (0..200).map(|row| vec![row.to_string(), "x".repeat(90)]).collect();
        let blocks = [
            Block::Heading(1, "Card".into()),
            Block::Table(vec!["A".into(), "B".into()], rows),
            Block::Field("Öl".into(), "語".into()),
        ];
        let file = pdf(&blocks);
        let text = String::from_utf8_lossy(&file);
        assert!(text.starts_with("%PDF-1.7") && text.trim_end().ends_with("%%EOF"), "{}", &text[..20]);
        let pages = text.matches("/Type /Page\n").count();
        assert!(pages > 5, "{pages}");
        assert!(text.contains("shown as ?"));
        assert_eq!(windows_1252('ö'), Some(0xf6));
        assert_eq!(windows_1252('語'), None);
    }
}
