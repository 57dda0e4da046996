"""The explorer: a page for the browser that searches and shows what a server holds, through its JSON API."""
