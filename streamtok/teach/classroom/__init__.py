"""`streamtok learn --class`: lessons for a room of people, on one laptop.

A server as `serve` runs it, with an API key for each name, so that the ledger knows who asked what.
Before its endpoints stand the pages of the class (`streamtok.teach.classroom.desk`): they are HTML
without a script. What a lesson shows is measured once, on a server of its own, for all.
Read next: `streamtok.teach.classroom.app`.
"""
