"""`mrkd report`: what a grid measured, as one page. Read from its folder; nothing is trained."""
