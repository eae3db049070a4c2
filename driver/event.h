/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_EVENT_H
#define BLKSNAP_EVENT_H

struct image;

/**
 * event_state_changed() - tells the administrator about an image's state
 * @image: is shown
 * @event: the value of BLKSNAP_EVENT
 *
 * Sends a "change" uevent, and wakes who polls the attribute "state".
 * Context: may sleep.
 */
void event_state_changed(const struct image *image, const char *event);

#endif
