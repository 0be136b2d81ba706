//! key=value parameters, declared once: parsing, help, manual and completion read one table.
