"""Users' pictures: of any mode and format, with transparency, EXIF data and ICC profiles."""
