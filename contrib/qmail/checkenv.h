#ifndef CHECKENV_H
#define CHECKENV_H

/*
 * Asks the program that CHECKENV names about one recipient.
 *
 * sender, recipient: as in the envelope, without angle brackets; "" is the null sender.
 * relayclient: the value of RELAYCLIENT, or 0; where it is set there is no check.
 *
 * Returns 0 where the recipient is accepted, else the reply to RCPT TO, with CR LF and of at most 512 bytes. The reply
 * is for this recipient only, and overwritten by the next call. A fault is a line on descriptor 2.
 */
extern char *checkenv(char *sender, char *recipient, char *relayclient);

#endif
